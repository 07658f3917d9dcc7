package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clients speak to one broker as one operator.
type clients struct {
	*admintest.Broker
	tenants   stokerv1.TenantServiceClient
	users     stokerv1.UserServiceClient
	agents    stokerv1.AgentServiceClient
	locations stokerv1.LocationServiceClient
	grants    stokerv1.GrantServiceClient
	fleet     stokerv1.FleetServiceClient
	audit     stokerv1.AuditServiceClient
}

func as(t *testing.T, b *admintest.Broker, operator string) clients {
	conn := b.Dial(t, operator)
	return clients{
		Broker: b, tenants: stokerv1.NewTenantServiceClient(conn), users: stokerv1.NewUserServiceClient(conn),
		agents: stokerv1.NewAgentServiceClient(conn), locations: stokerv1.NewLocationServiceClient(conn),
		grants: stokerv1.NewGrantServiceClient(conn), fleet: stokerv1.NewFleetServiceClient(conn),
		audit: stokerv1.NewAuditServiceClient(conn),
	}
}

// start runs a broker and connects as an administrator.
func start(t *testing.T, configure func(*adminapi.Config)) clients {
	t.Helper()
	return as(t, admintest.Start(t, admintest.Options{Configure: configure}), admintest.Admin)
}

// populate makes two tenants with what belongs to them.
func (c clients) populate(t *testing.T) {
	t.Helper()
	for _, tenant := range []string{"acme", "borg"} {
		c.tenant(t, tenant)
		must(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{
			User: &stokerv1.User{Tenant: tenant, Login: "nightly"}, Password: password,
		}))(t)
		must(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: tenant, Name: "server-1"}}))(t)
	}
	c.location(t, "frankfurt", nil)
	c.grant(t, "acme", "photos", nil)
}

const password = "correct-horse-battery-7"

func (c clients) tenant(t *testing.T, name string) *stokerv1.Tenant {
	t.Helper()
	return must(c.tenants.CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: name}}))(t).GetTenant()
}

func (c clients) location(t *testing.T, name string, change func(*stokerv1.Location)) *stokerv1.Location {
	t.Helper()
	l := &stokerv1.Location{Name: name, Account: "main", Bucket: "backups", Region: "eu-central-1"}
	if change != nil {
		change(l)
	}
	return must(c.locations.CreateLocation(t.Context(), &stokerv1.CreateLocationRequest{Location: l}))(t).GetLocation()
}

func newGrant(tenant, name string, change func(*stokerv1.Grant)) *stokerv1.Grant {
	g := &stokerv1.Grant{Tenant: tenant, Name: name, Location: "frankfurt", Prefix: tenant + "/" + name + "/", Access: stokerv1.Access_ACCESS_BACKUP}
	if change != nil {
		change(g)
	}
	return g
}

func (c clients) grant(t *testing.T, tenant, name string, change func(*stokerv1.Grant)) *stokerv1.Grant {
	t.Helper()
	return must(c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant(tenant, name, change)}))(t).GetGrant()
}

// must gives an answer that has to come.
func must[T any](answer T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

// refused checks the reason of a refusal, and that its text has the fragment.
func refused(t *testing.T, err error, want reason.Reason, fragment string) {
	t.Helper()
	st := status.Convert(err)
	if got := apierr.Reason(st); got != want {
		t.Errorf("reason %q, want %q: %v", got, want, err)
	} else if !strings.Contains(st.Message(), fragment) {
		t.Errorf("%q does not say %q", st.Message(), fragment)
	}
	if len(st.Message()) > 700 {
		t.Errorf("a message of %d bytes: %.100s...", len(st.Message()), st.Message())
	}
}

// changes gives the trail's administrative records, shortened.
func (c clients) changes(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, r := range c.Records(t) {
		if strings.HasPrefix(r.Event, "admin.") {
			lines = append(lines, shorten(r))
		}
	}
	return lines
}

// shorten writes what a record says of a change.
func shorten(r storage.AuditRecord) string {
	parts := []string{r.Event}
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for key := range r.Detail {
			if !yield(key) {
				return
			}
		}
	}) {
		parts = append(parts, fmt.Sprintf("%s=%s", key, r.Detail[key]))
	}
	if r.Reason != "" {
		parts = append(parts, "reason:"+r.Reason)
	}
	return strings.Join(parts, " ")
}
