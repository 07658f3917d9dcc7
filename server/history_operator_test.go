package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/history"
)

// historyOperator disturbs one tenant.
type historyOperator struct {
	w      *world
	tenant *company
	draw   *rand.Rand
	turns  int

	tenants stokerv1.TenantServiceClient
	users   stokerv1.UserServiceClient
	agents  stokerv1.AgentServiceClient
	grants  stokerv1.GrantServiceClient
	fleet   stokerv1.FleetServiceClient
}

func newHistoryOperator(w *world, c *company) *historyOperator {
	admin := w.b.Admin
	return &historyOperator{
		w: w, tenant: c, draw: w.draw("operator of " + c.name),
		tenants: stokerv1.NewTenantServiceClient(admin), users: stokerv1.NewUserServiceClient(admin), agents: stokerv1.NewAgentServiceClient(admin),
		grants: stokerv1.NewGrantServiceClient(admin), fleet: stokerv1.NewFleetServiceClient(admin),
	}
}

// run disturbs until the time is over, and leaves the tenant as it was.
func (o *historyOperator) run(ctx context.Context) {
	for !o.w.over.Load() && ctx.Err() == nil {
		o.pause(300, 900)
		o.turns++
		switch o.draw.IntN(11) {
		case 0, 1:
			o.user(ctx, o.draw.IntN(2) == 0)
		case 2, 3:
			o.agent(ctx, o.draw.IntN(2) == 0)
		case 4:
			o.wholeTenant(ctx, o.draw.IntN(2) == 0)
		case 5:
			o.certificate(ctx)
		case 6:
			o.password(ctx)
		case 7:
			o.grant(ctx, o.draw.IntN(2) == 0)
		case 8:
			o.prefix(ctx)
		case 9:
			o.credential(ctx)
		case 10:
			o.access(ctx)
		}
	}
}

func (o *historyOperator) pause(least, most int) {
	<-time.After(time.Duration(least+o.draw.IntN(most-least)) * time.Millisecond)
}

// cut does something until it is acknowledged, and takes it back after a while;
// lift is nil where nobody can.
func (o *historyOperator) cut(ctx context.Context, c history.Cut, do, lift func(context.Context) error) {
	o.w.say("%s: %s %+v", o.tenant.name, c.What, c.Party)
	if err := o.w.retry(ctx, do, nil); err != nil {
		o.w.say("%s: %s: %v", o.tenant.name, c.What, err)
		return
	}
	c.Acknowledged = time.Now()
	var place int
	o.w.note(func(h *history.History) { place, h.Cuts = len(h.Cuts), append(h.Cuts, c) })
	o.w.say("%s: %s acknowledged", o.tenant.name, c.What)
	if lift == nil {
		return
	}
	o.pause(200, 800)
	o.w.note(func(h *history.History) { h.Cuts[place].Lifted = time.Now() })
	if err := o.w.retry(ctx, lift, nil); err != nil {
		o.w.say("%s: lifting %s: %v", o.tenant.name, c.What, err)
	}
}

// revoke is the call of that name.
func (o *historyOperator) revoke(r *stokerv1.RevokeRequest) func(context.Context) error {
	r.Reason = "history"
	return func(ctx context.Context) error {
		_, err := o.fleet.Revoke(ctx, r)
		return err
	}
}

func (o *historyOperator) user(ctx context.Context, revoke bool) {
	login := o.tenant.user(o.draw.IntN(2)).login
	set := func(disabled bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := o.users.UpdateUser(ctx, &stokerv1.UpdateUserRequest{
				User: &stokerv1.User{Tenant: o.tenant.name, Login: login, Disabled: disabled}, UpdateMask: mask("disabled"),
			})
			return err
		}
	}
	c := history.Cut{Party: history.Party{Tenant: o.tenant.name, User: login}, What: "user disabled", Ends: true, Reasons: []string{"USER_DISABLED"}}
	do := set(true)
	if revoke {
		c.What = "user revoked"
		do = o.revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: login + "@" + o.tenant.name}})
	}
	o.cut(ctx, c, do, set(false))
}

func (o *historyOperator) agent(ctx context.Context, revoke bool) {
	name := o.tenant.agents[o.draw.IntN(len(o.tenant.agents))]
	set := func(disabled bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := o.agents.UpdateAgent(ctx, &stokerv1.UpdateAgentRequest{
				Agent: &stokerv1.Agent{Tenant: o.tenant.name, Name: name, Disabled: disabled}, UpdateMask: mask("disabled"),
			})
			return err
		}
	}
	c := history.Cut{Party: history.Party{Tenant: o.tenant.name, Agent: name}, What: "agent disabled", Ends: true, Reasons: []string{"AGENT_DISABLED"}}
	do := set(true)
	if revoke {
		c.What = "agent revoked"
		do = o.revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: o.tenant.name + "/" + name}})
	}
	o.cut(ctx, c, do, set(false))
}

func (o *historyOperator) wholeTenant(ctx context.Context, revoke bool) {
	set := func(disabled bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := o.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
				Tenant: &stokerv1.Tenant{Name: o.tenant.name, Disabled: disabled}, UpdateMask: mask("disabled"),
			})
			return err
		}
	}
	c := history.Cut{Party: history.Party{Tenant: o.tenant.name}, What: "tenant disabled", Ends: true, Reasons: []string{"TENANT_DISABLED"}}
	do := set(true)
	if revoke {
		c.What = "tenant revoked"
		do = o.revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: o.tenant.name}})
	}
	o.cut(ctx, c, do, set(false))
}

// certificate revokes one that was made lately, for good.
func (o *historyOperator) certificate(ctx context.Context) {
	o.w.mu.Lock()
	serials := o.w.serials[o.tenant.name]
	o.w.mu.Unlock()
	if len(serials) == 0 {
		return
	}
	serial := serials[len(serials)-1-o.draw.IntN(min(len(serials), 4))]
	o.cut(ctx, history.Cut{
		Party: history.Party{Certificate: serial}, What: "certificate revoked", Ends: true, Reasons: []string{"CERTIFICATE_REVOKED"},
	}, o.revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: serial}}), nil)
}

func (o *historyOperator) password(ctx context.Context) {
	n := o.draw.IntN(2)
	who := o.tenant.user(n)
	next := fmt.Sprintf("good password %d of %s", who.version+1, who.login)
	o.cut(ctx, history.Cut{
		Party: history.Party{Tenant: o.tenant.name, User: who.login, Password: who.version + 1}, What: "password changed",
		Ends: true, Reasons: []string{"PASSWORD_CHANGED"},
	}, func(ctx context.Context) error {
		_, err := o.users.UpdateUser(ctx, &stokerv1.UpdateUserRequest{
			User: &stokerv1.User{Tenant: o.tenant.name, Login: who.login}, Password: next, UpdateMask: mask("password"),
		})
		return err
	}, nil)
	o.tenant.mu.Lock()
	defer o.tenant.mu.Unlock()
	o.tenant.users[n] = person{who.login, next, who.version + 1}
}

// grant disables a grant, or deletes it and makes it anew.
func (o *historyOperator) grant(ctx context.Context, remove bool) {
	name := grantName(o.draw.IntN(historyGrants))
	c := history.Cut{Party: history.Party{Tenant: o.tenant.name, Grant: name}, What: "grant disabled"}
	set := func(disabled bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := o.grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
				Grant: &stokerv1.Grant{Tenant: o.tenant.name, Name: name, Disabled: disabled}, UpdateMask: mask("disabled"),
			})
			return err
		}
	}
	if !remove {
		o.cut(ctx, c, set(true), set(false))
		return
	}
	c.What = "grant deleted"
	prefix := o.termsEnd(name)
	o.cut(ctx, c, func(ctx context.Context) error {
		_, err := o.grants.DeleteGrant(ctx, &stokerv1.DeleteGrantRequest{Tenant: o.tenant.name, Name: name})
		return unless(err, "NOT_FOUND")
	}, func(ctx context.Context) error {
		_, err := o.grants.CreateGrant(ctx, &stokerv1.CreateGrantRequest{Grant: &stokerv1.Grant{
			Tenant: o.tenant.name, Name: name, Location: "main", Prefix: prefix, Access: stokerv1.Access_ACCESS_BACKUP, Lifetime: durationpb.New(2 * time.Second),
		}})
		return unless(err, "ALREADY_EXISTS")
	})
	o.termsBegin(name, prefix)
}

// unless takes an error with the reason for done: a call before it, whose answer
// was lost, has done it.
func unless(err error, why string) error {
	if reasonOf(err) == why {
		return nil
	}
	return err
}

// termsEnd closes the terms of a grant, and gives its prefix.
func (o *historyOperator) termsEnd(grant string) (prefix string) {
	o.w.note(func(h *history.History) {
		for i := range h.Terms {
			t := &h.Terms[i]
			if t.Tenant == o.tenant.name && t.Grant == grant && t.Until.IsZero() {
				t.Until, prefix = time.Now(), t.Prefix
			}
		}
	})
	return prefix
}

func (o *historyOperator) termsBegin(grant, prefix string) {
	o.w.note(func(h *history.History) {
		h.Terms = append(h.Terms, history.Terms{Tenant: o.tenant.name, Grant: grant, Prefix: prefix, From: time.Now()})
	})
}

// prefix moves a grant.
func (o *historyOperator) prefix(ctx context.Context) {
	name := grantName(o.draw.IntN(historyGrants))
	next := fmt.Sprintf("%s/%s/%d/", o.tenant.name, name, o.turns)
	o.termsEnd(name)
	err := o.w.retry(ctx, func(ctx context.Context) error {
		_, err := o.grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
			Grant: &stokerv1.Grant{Tenant: o.tenant.name, Name: name, Prefix: next}, UpdateMask: mask("prefix"),
		})
		return err
	}, nil)
	if err != nil {
		o.w.say("%s: moving %s: %v", o.tenant.name, name, err)
		return
	}
	o.termsBegin(name, next)
}

// access changes what a grant allows, and with it its policy.
func (o *historyOperator) access(ctx context.Context) {
	name := grantName(o.draw.IntN(historyGrants))
	access := []stokerv1.Access{stokerv1.Access_ACCESS_BACKUP, stokerv1.Access_ACCESS_RESTORE, stokerv1.Access_ACCESS_MAINTAIN}[o.draw.IntN(3)]
	if err := o.w.retry(ctx, func(ctx context.Context) error {
		_, err := o.grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
			Grant: &stokerv1.Grant{Tenant: o.tenant.name, Name: name, Access: access}, UpdateMask: mask("access"),
		})
		return err
	}, nil); err != nil {
		o.w.say("%s: changing %s: %v", o.tenant.name, name, err)
	}
}

// credential revokes the one that was received last.
func (o *historyOperator) credential(ctx context.Context) {
	id := ""
	o.w.note(func(h *history.History) {
		for _, r := range h.Received {
			if r.Tenant == o.tenant.name && time.Until(r.Expires) > 500*time.Millisecond {
				id = r.Credential
			}
		}
	})
	if id == "" {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	// Not repeated: it may have ended by itself in between.
	if err := o.revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: id}})(limited); err != nil {
		return
	}
	cut := history.Cut{Party: history.Party{Credential: id}, What: "credential revoked", Acknowledged: time.Now()}
	o.w.say("%s: credential %s revoked", o.tenant.name, id)
	o.w.note(func(h *history.History) { h.Cuts = append(h.Cuts, cut) })
}
