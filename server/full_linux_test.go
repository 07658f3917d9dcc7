package server_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stokerd/stoker/internal/partner/fulldisk"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// health follows the health of everything, until the test ends.
func health(t *testing.T, a agent) (next func(want healthv1.HealthCheckResponse_ServingStatus)) {
	t.Helper()
	watch, err := healthv1.NewHealthClient(a.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	wantOK(t, err)
	states := make(chan healthv1.HealthCheckResponse_ServingStatus, 100)
	go func() {
		defer close(states)
		for {
			m, err := watch.Recv()
			if err != nil {
				return
			}
			states <- m.GetStatus()
		}
	}()
	return func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case got, ok := <-states:
				if !ok {
					t.Fatal("the watch of health ended")
				}
				if got == want {
					return
				}
			case <-deadline:
				t.Fatalf("health was not %s in %s", want, patience)
			}
		}
	}
}

// The disk under the audit trail fills up: nothing is issued, nobody logs in,
// health says so; no record is lost, and with room again all of it works.
func TestDiskFullUnderTheAuditTrail(t *testing.T) {
	disk := fulldisk.New(t, 4<<20)
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Storage.SQLite = filepath.Join(disk.Dir, "stoker.db")
	}})
	acme := join(t, b, "acme", 3*time.Second)
	state := health(t, acme)
	state(healthv1.HealthCheckResponse_SERVING)
	s := subscribe(t, acme)
	received := map[string]bool{s.credential().GetId(): true}
	token := acme.session(t)

	disk.Fill(t)
	// The database may have had a little room of its own.
	for full := false; !full; {
		got, err := token.fetch(t, "nightly")
		switch {
		case err != nil:
			wantReason(t, err, reason.AuditUnavailable)
			full = true
		default:
			received[got[0].GetId()] = true
			disk.Fill(t)
		}
	}
	state(healthv1.HealthCheckResponse_NOT_SERVING)
	p := s.problem(reason.AuditUnavailable)
	if p.GetRetryTime() == nil {
		t.Errorf("problem %v", p)
	}
	for name, call := range map[string]func(context.Context) error{
		"a login": acme.whoami,
		"a session": func(ctx context.Context) error {
			_, err := stokerv1.NewSessionServiceClient(acme.conn).CreateSession(ctx, &stokerv1.CreateSessionRequest{})
			return err
		},
		"a wrong password": func(context.Context) error {
			return acme.whoami(brokertest.Basic(t.Context(), "backup@acme", "not the password"))
		},
	} {
		t.Run(name, func(t *testing.T) { wantReason(t, call(acme.ctx(t)), reason.AuditUnavailable) })
	}
	// Who is who is known without the disk.
	wantOK(t, token.whoami(token.ctx(t)))
	_, err := stokerv1.NewTenantServiceClient(b.Admin).CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "late"}})
	if r := reason.Reason(reasonOf(err)); r != reason.AuditUnavailable && r != reason.StorageUnavailable {
		t.Errorf("an operator's change was answered %v", err)
	}

	disk.Free(t)
	state(healthv1.HealthCheckResponse_SERVING)
	received[s.credential().GetId()] = true
	acme.works(t)
	for id := range received {
		if !credentialRecords(t, b, acme)[id] {
			t.Errorf("the credential %s left without its record", id)
		}
	}
	report, err := stokerv1.NewAuditServiceClient(b.Admin).Verify(t.Context(), &stokerv1.VerifyRequest{})
	if err != nil || !report.GetIntact() {
		t.Errorf("the trail is %v, %v", report, err)
	}
}
