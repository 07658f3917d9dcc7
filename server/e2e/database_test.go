package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// fleetOn starts agents of a broker, with short credentials, and waits until
// each is supplied.
func fleetOn(ctx context.Context, t *testing.T, b *brokertest.Broker, password string, agents int, life time.Duration) []*client.Source {
	t.Helper()
	b.Grant(&stokerv1.Grant{Tenant: "acme", Name: "short", Location: "main", Prefix: "acme/short/", Access: stokerv1.Access_ACCESS_BACKUP}, life)
	var fleet []*client.Source
	for i := range agents {
		source, err := client.New(ctx, client.Config{
			Brokers: []string{b.Addr}, Login: "backup@acme", Password: func(context.Context) (string, error) { return password, nil },
			TLS:    &tls.Config{RootCAs: b.Roots, Certificates: []tls.Certificate{b.Agent("acme", fmt.Sprintf("agent-%d", i))}, MinVersion: tls.VersionTLS13},
			Grants: []string{"short"},
		})
		must(t, err)
		t.Cleanup(func() { _ = source.Close() })
		fleet = append(fleet, source)
	}
	for _, s := range fleet {
		must(t, s.Wait(ctx, "short"))
	}
	return fleet
}

// renewed waits until every agent has another credential than now, and fails if
// any is ever without one.
func renewed(ctx context.Context, t *testing.T, fleet []*client.Source) {
	t.Helper()
	before := make([]string, len(fleet))
	for i, s := range fleet {
		c, err := s.Credential("short")
		must(t, err)
		before[i] = c.ID
	}
	polling.Until(ctx, t, "a renewal of every agent", func() bool {
		all := true
		for i, s := range fleet {
			c, err := s.Credential("short")
			if err != nil {
				t.Fatalf("agent %d is dry: %v", i, err)
			}
			all = all && c.ID != before[i]
		}
		return all
	})
}

// A database that answers late makes the broker late, and nothing worse: it goes
// on to serve, agents are renewed in time and let in, and what another replica
// is told holds here.
func TestSlowDatabaseLeavesNoAgentDry(t *testing.T) {
	t.Parallel() // it waits most of the time
	db := postgres.Start(t)
	link := db.Link(t)
	direct := db.Database(t)
	a, _, password := replicated(t, link.DSN(t, direct))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	fleet := fleetOn(ctx, t, a, password, 10, 30*time.Second)
	quick := a.Replica(func(c *server.Config) { c.Storage = server.StorageConfig{Postgres: direct} })

	link.Slow(150 * time.Millisecond)
	renewed(ctx, t, fleet)
	answer, err := grpc_health_v1.NewHealthClient(a.Admin).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "stoker.v1.CredentialService"})
	must(t, err)
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("a broker with a slow database is %v", answer.GetStatus())
	}
	cert := a.Agent("acme", "newcomer")
	stream := subscribed(brokertest.Basic(ctx, "backup@acme", password), t, stokerv1.NewCredentialServiceClient(a.Dial(cert)))

	_, err = stokerv1.NewUserServiceClient(quick.Admin).UpdateUser(ctx, &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "backup", Disabled: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must(t, err)
	acknowledged := time.Now()
	why, at := end(stream)
	if why != reason.UserDisabled {
		t.Errorf("the stream ended with %q", why)
	}
	t.Logf("the stream on the slow replica ended %v after the acknowledgement", at.Sub(acknowledged))
}

// The database is killed and comes back: agents keep what they have, and are
// renewed again before it ends; the audit trail is whole.
func TestKilledDatabaseLeavesNoAgentDry(t *testing.T) {
	t.Parallel() // it waits most of the time
	db := postgres.Start(t)
	a, b, password := replicated(t, db.Database(t))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	fleet := fleetOn(ctx, t, b, password, 10, 40*time.Second)
	db.Kill(t)
	health := grpc_health_v1.NewHealthClient(b.Admin)
	is := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) func() bool {
		return func() bool {
			answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "stoker.v1.CredentialService"})
			return err == nil && answer.GetStatus() == want
		}
	}
	polling.Until(ctx, t, "NOT_SERVING", is(grpc_health_v1.HealthCheckResponse_NOT_SERVING))
	for i, s := range fleet {
		if _, err := s.Credential("short"); err != nil {
			t.Errorf("agent %d lost its credential with the database: %v", i, err)
		}
	}
	db.Restart(t)
	polling.Until(ctx, t, "SERVING", is(grpc_health_v1.HealthCheckResponse_SERVING))
	renewed(ctx, t, fleet)
	for _, replica := range []*brokertest.Broker{a, b} {
		report, err := stokerv1.NewAuditServiceClient(replica.Admin).Verify(ctx, &stokerv1.VerifyRequest{})
		must(t, err)
		if !report.GetIntact() {
			t.Errorf("the trail is %v", report)
		}
	}
}
