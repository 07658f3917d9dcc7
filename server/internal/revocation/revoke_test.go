package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

var ann = revocation.Operator{
	Name: "ann", Identity: "spiffe://x.example/operator/ann", CertificateSerial: "0a", CertificateThumbprint: "ff", Peer: "192.0.2.1:5", RequestID: "r1",
}

// office is a desk over real storage, with one tenant whose grants are on the
// account main. The accounts old and other have no location of its.
type office struct {
	*revocation.Desk
	store     *sqlite.Store
	directory *directory.Directory
	trail     *audit.Trail

	tenant, borg storage.Tenant
	user         storage.User
	agent        storage.Agent
	grant, own   storage.Grant
}

// failing fails some calls of the store.
type failing struct {
	revocation.Store
	createRevocation, updateTenant func(int) error
	calls                          int
}

func (f *failing) CreateRevocation(ctx context.Context, r storage.Revocation) (storage.Revocation, error) {
	if f.createRevocation != nil {
		f.calls++
		if err := f.createRevocation(f.calls); err != nil {
			return r, err
		}
	}
	return f.Store.CreateRevocation(ctx, r)
}

func (f *failing) UpdateTenant(ctx context.Context, v storage.Tenant) (storage.Tenant, error) {
	if f.updateTenant != nil {
		f.calls++
		if err := f.updateTenant(f.calls); err != nil {
			return v, err
		}
	}
	return f.Store.UpdateTenant(ctx, v)
}

func open(t *testing.T, broken *failing) *office {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	o := &office{}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	o.store, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "stoker.db"), log)
	must()
	o.trail, err = audit.Open(t.Context(), o.store, secret.New(strings.Repeat("k", 32)), audit.Options{Log: log})
	must()
	o.directory, err = directory.Open(t.Context(), o.store, log)
	must()
	ctx, cancel := context.WithCancel(context.Background())
	followed := make(chan error, 1)
	go func() { followed <- o.directory.Run(ctx) }()
	t.Cleanup(func() {
		if err := o.trail.Close(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		if err := errors.Join(<-followed, o.store.Close()); err != nil {
			t.Error(err)
		}
	})
	meta := func() storage.Meta { return storage.Meta{ID: uuid.Must(uuid.NewV7()).String()} }
	o.tenant, err = o.store.CreateTenant(ctx, storage.Tenant{Meta: meta(), Name: "acme"})
	must()
	o.borg, err = o.store.CreateTenant(ctx, storage.Tenant{Meta: meta(), Name: "borg"})
	must()
	o.user, err = o.store.CreateUser(ctx, storage.User{Meta: meta(), TenantID: o.tenant.ID, Login: "nightly", PasswordHash: "hash"})
	must()
	o.agent, err = o.store.CreateAgent(ctx, storage.Agent{Meta: meta(), TenantID: o.tenant.ID, Name: "laptop"})
	must()
	location, err := o.store.CreateLocation(ctx, storage.Location{Meta: meta(), Name: "here", Account: "main", Bucket: "b", Region: "r"})
	must()
	o.grant, err = o.store.CreateGrant(ctx, storage.Grant{Meta: meta(), TenantID: o.tenant.ID, Name: "photos", LocationID: location.ID, Prefix: "p/", Access: "backup", Lifetime: time.Hour})
	must()
	o.own, err = o.store.CreateGrant(ctx, storage.Grant{Meta: meta(), TenantID: o.tenant.ID, UserID: o.user.ID, Name: "own", LocationID: location.ID, Prefix: "q/", Access: "backup", Lifetime: 30 * time.Hour})
	must()
	config := revocation.Config{
		Directory: o.directory, Store: o.store, Trail: o.trail, Log: log,
		Accounts: map[string]revocation.Account{
			"main": {Mode: revocation.Apply, MaxLifetime: 2 * time.Hour, IAM: newIAM()},
			"old":  {MaxLifetime: 12 * time.Hour}, "other": {MaxLifetime: time.Hour},
		},
	}
	if broken != nil {
		broken.Store = o.store
		config.Store = broken
	}
	o.Desk, err = revocation.New(config)
	must()
	return o
}

// issued writes the record of an issue.
func (o *office) issued(t *testing.T, r storage.AuditRecord) storage.AuditRecord {
	t.Helper()
	if r.Event == "" {
		r.Event = storage.EventCredentialIssued
	}
	if r.CredentialID == "" {
		r.CredentialID = uuid.Must(uuid.NewV7()).String()
	}
	r, err := o.trail.Append(t.Context(), r, audit.NoFence)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// trailed lists the records of what operators did, in short.
func (o *office) trailed(t *testing.T) (list []string) {
	t.Helper()
	records, err := o.store.ListAudit(t.Context(), storage.AuditFilter{}, nil, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Actor == ann.Identity {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.Event, r.Detail["kind"], r.Account, r.Reason, r.Detail["outcome"])))
		}
	}
	return list
}

func TestRevokeEachKind(t *testing.T) {
	o := open(t, nil)
	credential := o.issued(t, storage.AuditRecord{
		TenantID: o.tenant.ID, Tenant: "acme", UserID: o.user.ID, Login: "nightly", AgentID: o.agent.ID, Agent: "laptop",
		GrantID: o.grant.ID, Grant: "photos", Account: "main", SessionName: "stoker-1", AccessKeyID: "ASIA1", Expires: time.Now().Add(time.Hour),
	})
	for _, c := range []struct {
		target revocation.Target
		until  time.Duration
		off    func() bool
		first  string
	}{
		{revocation.Target{Kind: "credential", ID: credential.CredentialID, Name: "c"}, time.Hour, func() bool { return true }, ""},
		{revocation.Target{Kind: "certificate", ID: "ab12", Name: "AB:12"}, 0, func() bool { _, yes := o.directory.CertificateRevoked("ab12"); return yes }, "certificate.revoked"},
		{revocation.Target{Kind: "grant", ID: o.grant.ID, Name: "acme/photos"}, 2 * time.Hour, func() bool { v, _ := o.directory.Grant(o.grant.ID); return v.Disabled }, "admin.updated"},
		{revocation.Target{Kind: "agent", ID: o.agent.ID, Name: "acme/laptop"}, 30 * time.Hour, func() bool { v, _ := o.directory.Agent(o.agent.ID); return v.Disabled }, "admin.updated"},
		{revocation.Target{Kind: "user", ID: o.user.ID, Name: "nightly@acme"}, 30 * time.Hour, func() bool { v, _ := o.directory.User(o.user.ID); return v.Disabled }, "admin.updated"},
		{revocation.Target{Kind: "tenant", ID: o.tenant.ID, Name: "acme"}, 30 * time.Hour, func() bool { v, _ := o.directory.Tenant(o.tenant.ID); return v.Disabled }, "admin.updated"},
	} {
		t.Run(c.target.Kind, func(t *testing.T) {
			before, trail := time.Now(), len(o.trailed(t))
			plan, err := o.Plan(t.Context(), c.target, "stolen", ann)
			if err != nil || len(plan) != 1 || len(o.trailed(t)) != trail {
				t.Fatalf("planned %+v, %v", plan, err)
			}
			rows, err := o.Revoke(t.Context(), c.target, "stolen", ann)
			if err != nil || len(rows) != 1 {
				t.Fatalf("did %+v, %v", rows, err)
			}
			r := rows[0]
			if !c.off() {
				t.Error("the revocation was answered and is not in force")
			}
			if known, ok := o.directory.Revocation(r.ID); !ok || known != r {
				t.Errorf("the directory has %+v, the answer is %+v", known, r)
			}
			if r.TargetKind != c.target.Kind || r.TargetID != c.target.ID || r.TargetName != c.target.Name || r.Reason != "stolen" || r.Operator != "ann" || r.Before.Before(before.Add(-time.Millisecond)) {
				t.Errorf("it is %+v", r)
			}
			account, tenant, state := "main", o.tenant.ID, storage.RevocationPending
			if c.target.Kind == "certificate" {
				account, tenant, state = "", "", storage.RevocationLocal
			}
			if r.Account != account || r.TenantID != tenant || r.State != state || (c.target.Kind == "credential") != (r.SessionName == "stoker-1") {
				t.Errorf("it is %+v", r)
			}
			if left := r.Until.Sub(before); c.until > 0 && (left < c.until-time.Second || left > c.until+10*time.Second) || c.until == 0 && !r.Until.IsZero() {
				t.Errorf("until %v from now, want %v", left, c.until)
			}
			want := []string{strings.TrimSpace("revocation.created " + c.target.Kind + " " + account + " CREDENTIAL_REVOKED")}
			if account == "" {
				want[0] = "revocation.created certificate  CREDENTIAL_REVOKED"
			}
			switch c.first {
			case "admin.updated":
				want = slices.Insert(want, 0, "admin.updated "+c.target.Kind)
			case "certificate.revoked":
				want = slices.Insert(want, 0, "certificate.revoked certificate  CERTIFICATE_REVOKED")
			}
			if diff := cmp.Diff(want, o.trailed(t)[trail:]); diff != "" {
				t.Error(diff)
			}
		})
	}
	if u, err := o.store.GetUser(t.Context(), o.user.ID); err != nil || u.PasswordHash != "hash" {
		t.Errorf("the user is %+v, %v", u, err)
	}
	// Again is no error, and denies what was issued until now.
	trail := len(o.trailed(t))
	if _, err := o.Revoke(t.Context(), revocation.Target{Kind: "tenant", ID: o.tenant.ID, Name: "acme"}, "again", ann); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"revocation.created tenant main CREDENTIAL_REVOKED"}, o.trailed(t)[trail:]); diff != "" {
		t.Error(diff)
	}
}

// Grants move and are deleted; what was issued under them lives on.
func TestAccountsThatIssuedBeforeAreFoundInTheTrail(t *testing.T) {
	o := open(t, nil)
	mine := storage.AuditRecord{TenantID: o.tenant.ID, Tenant: "acme", UserID: o.user.ID, AgentID: o.agent.ID, GrantID: o.grant.ID, Account: "old", Expires: time.Now().Add(20 * time.Hour)}
	change := func(f func(*storage.AuditRecord)) storage.AuditRecord { r := mine; f(&r); return r }
	mine.Event = storage.EventCredentialIssued
	o.issued(t, mine)
	o.issued(t, change(func(r *storage.AuditRecord) { r.Account, r.Expires = "other", time.Now().Add(-time.Second) }))
	o.issued(t, change(func(r *storage.AuditRecord) { r.Account, r.TenantID = "other", "an older acme" }))
	o.issued(t, change(func(r *storage.AuditRecord) { r.Account, r.TenantID, r.Tenant = "other", o.borg.ID, "borg" }))
	o.issued(t, change(func(r *storage.AuditRecord) { r.Account, r.Event = "other", string(audit.CredentialRefused) }))
	for _, c := range []struct{ kind, id string }{{"tenant", o.tenant.ID}, {"user", o.user.ID}, {"agent", o.agent.ID}, {"grant", o.grant.ID}} {
		plan, err := o.Plan(t.Context(), revocation.Target{Kind: c.kind, ID: c.id, Name: "n"}, "r", ann)
		if err != nil || len(plan) != 2 || plan[0].Account != "main" || plan[1].Account != "old" || plan[1].State != storage.RevocationLocal {
			t.Errorf("%s: %+v, %v", c.kind, plan, err)
			continue
		}
		if left := time.Until(plan[1].Until); left < 19*time.Hour || left > 20*time.Hour {
			t.Errorf("%s: until %v from now", c.kind, left)
		}
	}
	plan, err := o.Plan(t.Context(), revocation.Target{Kind: "grant", ID: o.own.ID, Name: "n"}, "r", ann)
	if err != nil || len(plan) != 1 {
		t.Errorf("another grant: %+v, %v", plan, err)
	}
	// More than one page of the trail.
	var writers errgroup.Group
	for range 1001 {
		writers.Go(func() error {
			_, err := o.trail.Append(t.Context(), mine, audit.NoFence)
			return err
		})
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	last := o.issued(t, change(func(r *storage.AuditRecord) { r.Account = "other" }))
	plan, err = o.Plan(t.Context(), revocation.Target{Kind: "tenant", ID: o.tenant.ID, Name: "n"}, "r", ann)
	if err != nil || len(plan) != 3 {
		t.Errorf("after %d records: %+v, %v", last.Sequence, plan, err)
	}
}

func TestRevokeRefuses(t *testing.T) {
	o := open(t, nil)
	over := o.issued(t, storage.AuditRecord{Expires: time.Now().Add(-time.Second)})
	for kind, want := range map[string]reason.Reason{
		"tenant": reason.NotFound, "user": reason.NotFound, "agent": reason.NotFound, "grant": reason.NotFound, "credential": reason.NotFound, "planet": reason.InvalidRequest, "": reason.InvalidRequest,
	} {
		target := revocation.Target{Kind: kind, ID: uuid.NewString(), Name: "n"}
		if _, err := o.Revoke(t.Context(), target, "r", ann); !reason.Is(err, want) {
			t.Errorf("%q: %v", kind, err)
		}
	}
	if _, err := o.Revoke(t.Context(), revocation.Target{Kind: "credential", ID: over.CredentialID}, "r", ann); !reason.Is(err, reason.InvalidRequest) || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("expired: %v", err)
	}
	if _, err := o.Revoke(t.Context(), revocation.Target{Kind: "tenant", ID: o.tenant.ID}, "r", revocation.Operator{}); !reason.Is(err, reason.Internal) {
		t.Errorf("nobody: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Revoke(ctx, revocation.Target{Kind: "tenant", ID: o.tenant.ID}, "r", ann); err == nil {
		t.Error("a caller who has left gets an answer")
	}
	if v, _ := o.directory.Tenant(o.tenant.ID); v.Disabled || len(o.trailed(t)) != 0 {
		t.Errorf("something happened: %v", o.trailed(t))
	}
}

func TestFailuresAreRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		broken failing
		want   error
		trail  []string
		off    bool
	}{
		"disabling": {
			failing{updateTenant: func(int) error { return storage.ErrUnavailable }}, storage.ErrUnavailable,
			[]string{"admin.updated tenant", "admin.updated tenant  STORAGE_UNAVAILABLE failed"}, false,
		},
		"the revocation, in doubt": {
			failing{createRevocation: func(int) error { return errors.Join(storage.ErrUnavailable, storage.ErrInDoubt) }}, storage.ErrInDoubt,
			[]string{"admin.updated tenant", "revocation.created tenant main CREDENTIAL_REVOKED", "revocation.created tenant main STORAGE_UNAVAILABLE unknown"}, true,
		},
		"a race": {
			failing{updateTenant: func(n int) error {
				if n == 1 {
					return storage.ErrConflict
				}
				return nil
			}}, nil,
			[]string{"admin.updated tenant", "admin.updated tenant  ETAG_MISMATCH failed", "admin.updated tenant", "revocation.created tenant main CREDENTIAL_REVOKED"}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, &c.broken)
			_, err := o.Revoke(t.Context(), revocation.Target{Kind: "tenant", ID: o.tenant.ID, Name: "acme"}, "r", ann)
			if !errors.Is(err, c.want) {
				t.Errorf("answered %v", err)
			}
			if diff := cmp.Diff(c.trail, o.trailed(t)); diff != "" {
				t.Error(diff)
			}
			if v, err := o.store.GetTenant(t.Context(), o.tenant.ID); err != nil || v.Disabled != c.off {
				t.Errorf("disabled is %v, %v", v.Disabled, err)
			}
		})
	}
	o := open(t, &failing{updateTenant: func(int) error { return storage.ErrConflict }})
	if _, err := o.Revoke(t.Context(), revocation.Target{Kind: "tenant", ID: o.tenant.ID, Name: "acme"}, "r", ann); !reason.Is(err, reason.EtagMismatch) {
		t.Errorf("races without end: %v", err)
	}
}
