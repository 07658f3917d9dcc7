package e2e_test

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// held is an agent as a backup product embeds it, with what happened to it.
type held struct {
	*client.Source
	connected, credentials atomic.Int32
}

func (d *daemon) hold(t *testing.T, cert tls.Certificate, password string) *held {
	t.Helper()
	source, err := client.New(t.Context(), client.Config{
		Brokers: []string{d.addr}, TLS: &tls.Config{RootCAs: d.roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		Login: "backup@acme", Password: func(context.Context) (string, error) { return password, nil },
	})
	must(t, err)
	t.Cleanup(func() { _ = source.Close() })
	h := &held{Source: source}
	source.Watch(func(e client.Event) {
		switch e.Kind {
		case client.EventConnected:
			h.connected.Add(1)
		case client.EventCredential:
			h.credentials.Add(1)
		}
	})
	return h
}

func (d *daemon) count(t *testing.T, events ...string) int {
	t.Helper()
	answer, err := stokerv1.NewAuditServiceClient(d.admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{Events: events, PageSize: 1000})
	must(t, err)
	return len(answer.GetRecords())
}

// A broker that is killed and started again costs no STS call and no password
// hash for agents that hold valid credentials and tokens, and no agent is ever
// without a credential.
func TestRestartIsFree(t *testing.T) {
	const agents = 50
	d := newDaemon(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	password, certs := d.fleet(ctx, agents, time.Hour)
	fleet := make([]*held, agents)
	for i, cert := range certs {
		fleet[i] = d.hold(t, cert, password)
	}
	before := make([]client.Credential, agents)
	for i, a := range fleet {
		must(t, a.Wait(ctx, "nightly"))
		c, err := a.Credential("nightly")
		must(t, err)
		before[i] = c
	}
	issued, logins := d.sts.Calls()["GetFederationToken"], d.count(t, "session.created")
	if issued != agents || logins != agents {
		t.Fatalf("%d STS calls and %d logins for %d agents", issued, logins, agents)
	}

	d.kill()
	for i, a := range fleet {
		if c, err := a.Credential("nightly"); err != nil || c.ID != before[i].ID {
			t.Errorf("agent %d has %v, %v while the broker is away", i, c.ID, err)
		}
	}
	d.start()
	polling.Until(ctx, t, "all agents to be back", func() bool {
		for _, a := range fleet {
			if a.connected.Load() < 2 {
				return false
			}
		}
		return true
	})
	// A change reaches every stream once it is back: what came of the resumed
	// credentials is decided by then.
	if _, err := stokerv1.NewTenantServiceClient(d.admin).UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: "Acme"},
	}); err != nil {
		t.Fatal(err)
	}
	for i, a := range fleet {
		if c, err := a.Credential("nightly"); err != nil || c.ID != before[i].ID {
			t.Errorf("agent %d has %v, %v after the restart, not %v", i, c.ID, err, before[i].ID)
		}
		if n := a.credentials.Load(); n > 1 {
			t.Errorf("agent %d was sent %d credentials", i, n)
		}
	}
	if n := d.sts.Calls()["GetFederationToken"]; n != issued {
		t.Errorf("the restart cost %d STS calls", n-issued)
	}
	if n := d.count(t, "session.created"); n != logins {
		t.Errorf("the restart cost %d logins", n-logins)
	}
}
