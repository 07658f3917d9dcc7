package directory_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

func openStore(t testing.TB) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "stoker.db"), logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// must gives the value of a write that may not fail.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A directory that followed every change of a real store answers as one that
// was loaded afterwards, and its observers were told of each change.
func TestSQLiteFollow(t *testing.T) {
	store := openStore(t)
	d := open(t, store)
	heard := listen(t, d)
	run(t, d)
	ctx := t.Context()

	tenant := must[storage.Tenant](t)(store.CreateTenant(ctx, acme))
	must[storage.Tenant](t)(store.CreateTenant(ctx, borg))
	user := must[storage.User](t)(store.CreateUser(ctx, ann))
	agent := must[storage.Agent](t)(store.CreateAgent(ctx, box))
	must[storage.Agent](t)(store.CreateAgent(ctx, boxToo))
	location := must[storage.Location](t)(store.CreateLocation(ctx, west))
	grant := must[storage.Grant](t)(store.CreateGrant(ctx, weekly))
	must[storage.Grant](t)(store.CreateGrant(ctx, annual))
	known := must[storage.Certificate](t)(store.RecordCertificate(ctx, storage.Certificate{
		Meta: meta("c2"), Serial: "0a1c", Subject: "spiffe://example/tenant/acme/agent/box", AgentID: "a1",
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}))
	synced(t, d)
	checkAgainstLoaded(t, d, store)
	if u, _ := d.User("u1"); u.PasswordHash != "" || u.Revision != 1 {
		t.Errorf("User = %+v", u)
	}
	absent(t, "a certificate that is not revoked")(d.CertificateRevoked("0a1c"))

	tenant.DisplayName, user.Disabled, agent.Disabled, location.KMSKeyARN = "Acme!", true, true, "arn:aws:kms:r:1:key/k"
	grant.Actions = []string{"s3:GetObject", "s3:PutObject"}
	known.RevocationReason = "stolen"
	must[storage.Tenant](t)(store.UpdateTenant(ctx, tenant))
	must[storage.User](t)(store.UpdateUser(ctx, user))
	must[storage.Agent](t)(store.UpdateAgent(ctx, agent))
	must[storage.Location](t)(store.UpdateLocation(ctx, location))
	must[storage.Grant](t)(store.UpdateGrant(ctx, grant))
	must[storage.Certificate](t)(store.RevokeCertificate(ctx, known))
	must[storage.Revocation](t)(store.CreateRevocation(ctx, storage.Revocation{
		Meta: meta("r1"), TargetKind: "user", TargetID: "u1", TenantID: "t1", Before: time.Now(), Until: time.Now().Add(time.Hour),
		State: storage.RevocationPending, Reason: "left", Operator: "op",
	}))
	if err := store.EndSession(ctx, storage.EndedSession{ID: "s1", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	synced(t, d)
	checkAgainstLoaded(t, d, store)
	check(t, "CertificateRevoked", "stolen")(d.CertificateRevoked("0a1c"))
	if !d.SessionEnded("s1") {
		t.Error("the session has not ended")
	}

	before := len(heard.heard())
	if err := store.DeleteTenant(ctx, "t1", 0); err != nil {
		t.Fatal(err)
	}
	synced(t, d)
	checkAgainstLoaded(t, d, store)
	for _, kind := range []storage.Kind{storage.KindTenant, storage.KindUser, storage.KindAgent, storage.KindGrant} {
		if !slices.ContainsFunc(heard.heard()[before:], func(c storage.Change) bool { return c.Kind == kind }) {
			t.Errorf("nobody was told of the %s that went with its tenant", kind)
		}
	}
	feed := must[[]storage.Change](t)(store.Changes(ctx, 0, 1000))
	if got := heard.heard(); !slices.Equal(got, feed) {
		t.Errorf("heard %v\nfeed  %v", got, feed)
	}
}

// checkAgainstLoaded compares with a directory that is loaded now.
func checkAgainstLoaded(t *testing.T, d *directory.Directory, store directory.Store) {
	t.Helper()
	loaded := open(t, store)
	type picture struct {
		Sequence    int64
		Answers     []any
		Grants      []storage.Grant
		Revocations []storage.Revocation
	}
	of := func(d *directory.Directory) picture {
		p := picture{Sequence: d.Sequence(), Grants: d.GrantsFor("t1", "u1"), Revocations: d.Revocations()}
		add := func(answer any, _ bool) { p.Answers = append(p.Answers, answer) }
		add(d.Tenant("t1"))
		add(d.TenantByName("borg"))
		add(d.User("u1"))
		add(d.UserByLogin("t1", "ann"))
		add(d.Agent("a1"))
		add(d.AgentByName("t2", "box"))
		add(d.Location("l1"))
		add(d.GrantByName("t1", "weekly"))
		add(d.RevokedCertificate("c2"))
		return p
	}
	if got, want := of(d), of(loaded); !reflect.DeepEqual(got, want) {
		t.Errorf("followed %+v\nloaded   %+v", got, want)
	}
}

// Many writers at once, each of whom sees its own write after Sync.
func TestSQLiteSync(t *testing.T) {
	store := openStore(t)
	d := start(t, store)
	must[storage.Tenant](t)(store.CreateTenant(t.Context(), acme))
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 10 {
				id := fmt.Sprintf("%d-%d", worker, i)
				if _, err := store.CreateAgent(t.Context(), storage.Agent{Meta: meta(id), TenantID: "t1", Name: id}); err != nil {
					t.Error(err)
					return
				}
				if err := d.Sync(t.Context()); err != nil {
					t.Errorf("Sync: %v", err)
				}
				if _, ok := d.AgentByName("t1", id); !ok {
					t.Errorf("%s is not there after Sync", id)
				}
			}
		})
	}
	group.Wait()
}

// BenchmarkSQLiteSync is what an administrator waits for after one change.
func BenchmarkSQLiteSync(b *testing.B) {
	store := openStore(b)
	d := start(b, store)
	tenant := must[storage.Tenant](b)(store.CreateTenant(b.Context(), acme))
	for b.Loop() {
		b.StopTimer()
		tenant = must[storage.Tenant](b)(store.UpdateTenant(b.Context(), tenant))
		b.StartTimer()
		synced(b, d)
	}
}
