package bench

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
	"github.com/stokerd/stoker/server/internal/history"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
)

// trouble is what soak does to a broker.
type trouble struct {
	*bench
	site   *site.Site
	told   *chronicle
	broker *process.Process
	fleet  *fleet.Fleet
	admin  *grpc.ClientConn
	// events counts by what happened.
	events map[string]int
	// profiles counts those that were written.
	profiles int
}

// vanish is the misfortune that leaves half-open connections.
const vanish = "connections left half open"

// misfortunes are all that happens, with how often: of a hundred events so many
// are of that kind. Of the rest nothing happens.
var misfortunes = []struct {
	what string
	of   int
	do   func(*trouble, context.Context) error
	// restarts: not while the broker ages.
	restarts bool
}{
	{what: "STS faults", of: 14, do: (*trouble).fault},
	{what: "changes of a grant", of: 14, do: (*trouble).change},
	{what: "tenants disabled", of: 8, do: (*trouble).disableTenant},
	{what: "agents disabled", of: 8, do: (*trouble).disableAgent},
	{what: "connections dropped", of: 14, do: (*trouble).drop},
	{what: vanish, of: 6, do: (*trouble).vanish},
	{what: "agents that do not read", of: 6, do: (*trouble).deafen},
	{what: "agents' clocks set wrong", of: 6, do: (*trouble).skew},
	{what: "broker's clock set wrong", of: 4, do: (*trouble).step},
	{what: "certificates renewed", of: 8, do: (*trouble).renew},
	{what: "restarts", of: 2, do: (*trouble).restart, restarts: true},
	{what: "crashes", of: 2, do: (*trouble).crash, restarts: true},
}

// misfortunes has them happen for a time, restarts included or not: each of
// them once, and then by chance.
func (t *trouble) misfortunes(ctx context.Context, d time.Duration, restarts bool) error {
	if t.events == nil {
		t.events = map[string]int{}
	}
	end := time.Now().Add(d)
	for i := 0; i < len(misfortunes) || time.Now().Before(end); i++ {
		k := i
		if k >= len(misfortunes) {
			k = anyMisfortune()
		}
		if k < len(misfortunes) && (restarts || !misfortunes[k].restarts) {
			m := misfortunes[k]
			t.events[m.what]++
			if err := m.do(t, ctx); err != nil {
				return fmt.Errorf("%s: %w", m.what, err)
			}
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// anyMisfortune draws one by its frequency; beyond the last: none.
func anyMisfortune() (k int) {
	for pick := mathrand.N(100); k < len(misfortunes); k++ {
		if pick -= misfortunes[k].of; pick < 0 {
			break
		}
	}
	return k
}

// brief is how long something lasts that nobody may notice.
func (t *trouble) brief() time.Duration { return t.Lifetime / 20 }

// few is a random number of the troubled agents.
func (t *trouble) few() int { return 1 + mathrand.N(t.fleet.Size()/50+1) }

func (t *trouble) drop(context.Context) error {
	t.fleet.Drop(troubledGroup, t.few())
	return nil
}

func (t *trouble) vanish(context.Context) error {
	err := t.fleet.Vanish(troubledGroup, t.few(), halfOpen)
	if errors.Is(err, errors.ErrUnsupported) {
		t.say("soak: NOT MEASURED: half-open connections: this system cannot make them")
		return nil
	}
	return err
}

func (t *trouble) deafen(context.Context) error {
	t.fleet.Deafen(troubledGroup, t.few(), t.Lifetime)
	return nil
}

func (t *trouble) skew(context.Context) error {
	t.fleet.Skew(troubledGroup, t.few(), time.Duration(mathrand.Int64N(int64(2*time.Hour)))-time.Hour)
	return nil
}

// step sets the wall clock of the broker's leases wrong for a while.
func (t *trouble) step(ctx context.Context) error {
	by := time.Duration(mathrand.Int64N(int64(2*time.Hour))) - time.Hour
	if _, err := t.broker.Ask(ctx, "clock "+by.String()); err != nil {
		return err
	}
	if err := wait(ctx, t.brief()); err != nil {
		return err
	}
	_, err := t.broker.Ask(ctx, "clock 0s")
	return err
}

func (t *trouble) restart(ctx context.Context) error { return t.anew(ctx, stop) }

func (t *trouble) crash(ctx context.Context) error {
	return t.anew(ctx, func(p *process.Process) error { return p.Kill() })
}

// anew ends the broker and starts it again.
func (t *trouble) anew(ctx context.Context, end func(*process.Process) error) error {
	if err := end(t.broker); err != nil {
		return err
	}
	next, err := t.start(ctx, t.site, "broker", t.broker.Address, false)
	if err != nil {
		return err
	}
	t.broker = next
	return nil
}

// fault makes the STS fail for so short a time that nobody may notice.
func (t *trouble) fault(ctx context.Context) error {
	kinds := []devsts.FaultKind{devsts.Throttle, devsts.ServerError, devsts.Unavailable, devsts.Garble, devsts.Drop, devsts.Delay}
	f := devsts.Fault{Kind: kinds[mathrand.N(len(kinds))], Probability: 0.5}
	if f.Kind == devsts.Delay {
		f.Delay = t.brief()
	}
	began := time.Now()
	if err := t.site.STS.Inject(f); err != nil {
		return err
	}
	defer func() {
		t.site.STS.ClearFaults()
		t.told.fault(spell{began, time.Now()})
	}()
	return wait(ctx, t.brief())
}

// change changes what the troubled tenant's grant allows: all are renewed.
func (t *trouble) change(ctx context.Context) error {
	access := []stokerv1.Access{stokerv1.Access_ACCESS_BACKUP, stokerv1.Access_ACCESS_RESTORE, stokerv1.Access_ACCESS_MAINTAIN}
	_, err := stokerv1.NewGrantServiceClient(t.admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "troubled", Name: site.Grant, Access: access[mathrand.N(len(access))]},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
	}, grpc.WaitForReady(true))
	return err
}

// disableTenant takes everything from the troubled tenant for a while.
func (t *trouble) disableTenant(ctx context.Context) error {
	return t.cut(ctx, history.Cut{Party: history.Party{Tenant: "troubled"}, What: "tenant disabled", Ends: true, Reasons: []string{"TENANT_DISABLED"}},
		func(disabled bool) error {
			_, err := stokerv1.NewTenantServiceClient(t.admin).UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
				Tenant: &stokerv1.Tenant{Name: "troubled", Disabled: disabled}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
			}, grpc.WaitForReady(true))
			return err
		})
}

// disableAgent does so to one of its agents.
func (t *trouble) disableAgent(ctx context.Context) error {
	a := t.site.Agents[t.anyTroubled()]
	return t.cut(ctx, history.Cut{Party: history.Party{Tenant: "troubled", Agent: a.Name}, What: "agent disabled", Ends: true, Reasons: []string{"AGENT_DISABLED"}},
		func(disabled bool) error {
			_, err := stokerv1.NewAgentServiceClient(t.admin).UpdateAgent(ctx, &stokerv1.UpdateAgentRequest{
				Agent: &stokerv1.Agent{Tenant: a.Tenant, Name: a.Name, Disabled: disabled}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
			}, grpc.WaitForReady(true))
			return err
		})
}

// cut cuts somebody off for a while, and notes it.
func (t *trouble) cut(ctx context.Context, c history.Cut, disable func(bool) error) error {
	if err := disable(true); err != nil {
		return err
	}
	c.Acknowledged = time.Now()
	if err := wait(ctx, t.brief()); err != nil {
		return err
	}
	c.Lifted = time.Now()
	t.told.cut(c)
	return disable(false)
}

// anyTroubled is the index of one of the troubled agents.
func (t *trouble) anyTroubled() int {
	calm := t.site.Groups[calmGroup].Agents
	return calm + mathrand.N(len(t.site.Agents)-calm)
}

// renew renews an agent's certificate, and makes the session that belongs to
// the new one, with the password.
func (t *trouble) renew(ctx context.Context) error {
	i := t.anyTroubled()
	a := &t.site.Agents[i]
	key, request, err := pki.NewRequest()
	if err != nil {
		return err
	}
	var made *stokerv1.RenewCertificateResponse
	if err := t.as(a.Certificate, func(c *grpc.ClientConn) (err error) {
		made, err = stokerv1.NewEnrollmentServiceClient(c).RenewCertificate(ctx, &stokerv1.RenewCertificateRequest{CertificateRequest: request}, grpc.WaitForReady(true))
		return err
	}); err != nil {
		return err
	}
	certificate, err := pki.Pair(key, made.GetCertificate().GetCertificatePem())
	if err != nil {
		return err
	}
	var session *stokerv1.CreateSessionResponse
	if err := t.as(certificate, func(c *grpc.ClientConn) (err error) {
		login := base64.StdEncoding.EncodeToString([]byte(site.Login + "@" + a.Tenant + ":" + t.site.Password.Reveal()))
		with := metadata.AppendToOutgoingContext(ctx, "authorization", "Basic "+login)
		session, err = stokerv1.NewSessionServiceClient(c).CreateSession(with, &stokerv1.CreateSessionRequest{}, grpc.WaitForReady(true))
		return err
	}); err != nil {
		return err
	}
	a.Certificate, a.Token = certificate, session.GetAccessToken()
	a.Serial, a.CertificateEnd = made.GetCertificate().GetSerial(), made.GetCertificate().GetNotAfter().AsTime()
	t.fleet.Replace(i, identityOf(t.site, *a))
	return nil
}

// as makes calls with a certificate.
func (t *trouble) as(certificate tls.Certificate, calls func(*grpc.ClientConn) error) (err error) {
	config := t.site.ClientTLS(certificate)
	config.NextProtos = nil // grpc sets it
	c, err := grpc.NewClient(t.broker.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return calls(c)
}
