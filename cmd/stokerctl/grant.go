package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type grantCommands struct {
	Create grantCreate `cmd:"" help:"Add a grant. Agents that take all their grants get a credential at once."`
	Get    grantGet    `cmd:"" help:"Show one grant and its session policy."`
	List   grantList   `cmd:"" help:"List a tenant's grants by name."`
	Update grantUpdate `cmd:"" help:"Change a grant; agents get new credentials where that changes the session policy."`
	Delete grantDelete `cmd:"" help:"Remove a grant and tell its agents to stop."`
}

var grantColumns = append([]column[*stokerv1.Grant]{
	{title: "GRANT", value: func(g *stokerv1.Grant) string { return g.GetTenant() + "/" + g.GetName() }},
	{title: "USER", value: func(g *stokerv1.Grant) string { return orEvery(g.GetLogin()) }},
	{title: "LOCATION", value: (*stokerv1.Grant).GetLocation},
	{title: "PREFIX", value: (*stokerv1.Grant).GetPrefix},
	{title: "ACCESS", value: func(g *stokerv1.Grant) string { return accessName(g.GetAccess()) }},
	{title: "ACTIONS", value: func(g *stokerv1.Grant) string { return strings.Join(g.GetActions(), " ") }, detail: true},
	{title: "LIFETIME", value: func(g *stokerv1.Grant) string { return g.GetLifetime().AsDuration().String() }},
	{title: "STATE", value: stateOf[*stokerv1.Grant]},
}, common[*stokerv1.Grant]()...)

func orEvery(login string) string {
	if login == "" {
		return "(all)"
	}
	return login
}

// accessName is an access as people write it, such as "backup".
func accessName(access stokerv1.Access) string {
	return strings.ToLower(strings.TrimPrefix(access.String(), "ACCESS_"))
}

// parseAccess reads it back. The unspecified access is none.
func parseAccess(name string) (stokerv1.Access, bool) {
	access := stokerv1.Access_value["ACCESS_"+strings.ToUpper(name)]
	return stokerv1.Access(access), access != 0 && name == strings.ToLower(name)
}

type grantCreate struct {
	Grant    member        `arg:"" name:"tenant/grant" help:"The name is up to 63 lower-case letters, digits and dashes."`
	Location string        `required:"" help:"The location's name."`
	Prefix   string        `required:"" help:"Where all keys begin; ends in a slash."`
	Access   string        `required:"" enum:"backup,restore,maintain,actions" help:"backup, restore, maintain, or actions (with --action)."`
	Action   []string      `placeholder:"s3:ACTION" help:"An S3 action; repeat it for more."`
	Lifetime time.Duration `help:"How long each credential lives. Default: an hour, as far as the account allows."`
	Login    string        `help:"The one user who has the grant. Default: every user of the tenant."`
	Disable  bool          `help:"Issue nothing for it for now."`
}

func (c *grantCreate) Run(a *api) error {
	access, _ := parseAccess(c.Access)
	g := &stokerv1.Grant{
		Tenant: c.Grant.tenant, Name: c.Grant.name, Login: c.Login, Location: c.Location, Prefix: c.Prefix,
		Access: access, Actions: c.Action, Disabled: c.Disable,
	}
	if c.Lifetime != 0 {
		g.Lifetime = durationpb.New(c.Lifetime)
	}
	r, err := a.grants.CreateGrant(a.ctx, &stokerv1.CreateGrantRequest{Grant: g})
	if err != nil {
		return err
	}
	return a.done(r.GetGrant(), "created grant %s", c.Grant)
}

type grantGet struct {
	Grant member `arg:"" name:"tenant/grant"`
}

func (c *grantGet) Run(a *api) error {
	r, err := a.grants.GetGrant(a.ctx, &stokerv1.GetGrantRequest{Tenant: c.Grant.tenant, Name: c.Grant.name})
	if err != nil {
		return err
	}
	if a.json {
		return a.object(r)
	}
	if err := show(a.output, grantColumns, r.GetGrant()); err != nil {
		return err
	}
	if r.GetSessionPolicy() == "" {
		a.say("no session policy can be made of this grant, so nothing is issued for it; correct it with grant update")
		return nil
	}
	return a.printPolicyText("session policy:", r.GetSessionPolicy())
}

// printPolicyText prints a session policy so that it can be read.
func (a *api) printPolicyText(title, text string) error {
	var policy bytes.Buffer
	if err := json.Indent(&policy, []byte(text), "", "  "); err != nil {
		return fmt.Errorf("the broker answered a session policy that is no JSON: %w", err)
	}
	_, err := fmt.Fprintf(a.out, "%s\n%s\n", title, policy.String())
	return err
}

type grantList struct {
	Tenant string `arg:""`
}

func (c *grantList) Run(a *api) error {
	found, err := a.allGrants(c.Tenant)
	if err != nil {
		return err
	}
	return showList(a.output, grantColumns, found)
}

func (a *api) allGrants(tenant string) ([]*stokerv1.Grant, error) {
	return all(func(token string) ([]*stokerv1.Grant, string, error) {
		r, err := a.grants.ListGrants(a.ctx, &stokerv1.GrantServiceListGrantsRequest{Tenant: tenant, PageSize: pageSize, PageToken: token})
		return r.GetGrants(), r.GetNextPageToken(), err
	})
}

type grantUpdate struct {
	Grant    member         `arg:"" name:"tenant/grant"`
	Location *string        `help:"The location's name."`
	Prefix   *string        `help:"Where all keys begin; ends in a slash."`
	Access   *string        `enum:"backup,restore,maintain,actions" help:"backup, restore, maintain, or actions (with --action)."`
	Action   []string       `placeholder:"s3:ACTION" help:"An S3 action; repeat it for more. Replaces those that were listed."`
	Lifetime *time.Duration `help:"How long each credential lives."`
	Login    *string        `help:"The one user who has the grant; '' for every user."`
	switching
	unchanged
}

func (c *grantUpdate) Run(a *api) error {
	var e edit
	access, _ := parseAccess(given(&e, "access", c.Access))
	g := &stokerv1.Grant{
		Tenant: c.Grant.tenant, Name: c.Grant.name, Etag: c.Etag, Access: access,
		Location: given(&e, "location", c.Location), Prefix: given(&e, "prefix", c.Prefix),
		Login: given(&e, "login", c.Login), Disabled: e.disabled(c.switching),
	}
	if c.Lifetime != nil {
		g.Lifetime = durationpb.New(given(&e, "lifetime", c.Lifetime))
	}
	// Another access than actions has no actions: changing it takes them away.
	if c.Action != nil || c.Access != nil {
		g.Actions = given(&e, "actions", &c.Action)
	}
	mask, err := e.paths()
	if err != nil {
		return err
	}
	r, err := a.grants.UpdateGrant(a.ctx, &stokerv1.UpdateGrantRequest{Grant: g, UpdateMask: mask})
	if err != nil {
		return err
	}
	return a.done(r.GetGrant(), "updated grant %s", c.Grant)
}

type grantDelete struct {
	Grant member `arg:"" name:"tenant/grant"`
	unchanged
}

func (c *grantDelete) Run(a *api) error {
	if err := a.confirm("delete grant %s", c.Grant); err != nil {
		return err
	}
	r, err := a.grants.DeleteGrant(a.ctx, &stokerv1.DeleteGrantRequest{Tenant: c.Grant.tenant, Name: c.Grant.name, Etag: c.Etag})
	if err != nil {
		return err
	}
	return a.done(r, "deleted grant %s", c.Grant)
}
