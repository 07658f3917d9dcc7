package directory_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
)

var (
	acme   = storage.Tenant{Meta: meta("t1"), Name: "acme", DisplayName: "Acme"}
	borg   = storage.Tenant{Meta: meta("t2"), Name: "borg"}
	ann    = storage.User{Meta: meta("u1"), TenantID: "t1", Login: "ann", PasswordHash: "$argon2id$hidden", PasswordVersion: 3}
	annToo = storage.User{Meta: meta("u2"), TenantID: "t2", Login: "ann"}
	box    = storage.Agent{Meta: meta("a1"), TenantID: "t1", Name: "box"}
	boxToo = storage.Agent{Meta: meta("a2"), TenantID: "t2", Name: "box"}
	west   = storage.Location{Meta: meta("l1"), Name: "west", Account: "main", Bucket: "b", Region: "r"}
	weekly = storage.Grant{Meta: meta("g1"), TenantID: "t1", Name: "weekly", LocationID: "l1", Prefix: "acme/", Access: "actions",
		Actions: []string{"s3:GetObject"}, Lifetime: time.Hour}
	annual  = storage.Grant{Meta: meta("g2"), TenantID: "t1", UserID: "u1", Name: "annual", LocationID: "l1", Disabled: true}
	others  = storage.Grant{Meta: meta("g3"), TenantID: "t1", UserID: "u9", Name: "others", LocationID: "l1"}
	foreign = storage.Grant{Meta: meta("g4"), TenantID: "t2", Name: "weekly", LocationID: "l1"}
	stolen  = storage.Certificate{Meta: meta("c1"), Serial: "0a1b", RevokedAt: time.Unix(1, 0).UTC(), RevocationReason: "stolen"}
	sound   = storage.Certificate{Meta: meta("c2"), Serial: "0a1c"}
	ended   = storage.EndedSession{ID: "s1", Expires: time.Now().Add(time.Hour)}
	second  = storage.Revocation{Meta: meta("r2"), TargetKind: "tenant", TargetID: "t2", State: storage.RevocationPending}
	first   = storage.Revocation{Meta: meta("r1"), TargetKind: "user", TargetID: "u1", State: storage.RevocationLocal}
	over    = storage.Revocation{Meta: meta("r3"), State: storage.RevocationExpired}
)

func everything() []write {
	return []write{
		put(acme), put(borg), put(ann), put(annToo), put(box), put(boxToo), put(west), put(weekly), put(annual), put(others),
		put(foreign), put(stolen), put(sound), put(ended), put(second), put(first), put(over),
	}
}

// The look-ups answer alike whether the picture was loaded or followed.
func TestLookUps(t *testing.T) {
	t.Run("loaded", func(t *testing.T) {
		f := newFake()
		f.commit(everything()...)
		checkLookUps(t, open(t, f))
	})
	t.Run("followed", func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		f.commit(everything()...)
		synced(t, d)
		checkLookUps(t, d)
	})
	t.Run("deleted", func(t *testing.T) {
		f := newFake()
		f.commit(everything()...)
		d := start(t, f)
		for _, w := range everything() {
			f.commit(gone(w.kind, w.id))
		}
		synced(t, d)
		checkNothing(t, d)
	})
	t.Run("empty", func(t *testing.T) { checkNothing(t, open(t, newFake())) })
}

func checkLookUps(t *testing.T, d *directory.Directory) {
	t.Helper()
	hashless := ann
	hashless.PasswordHash = ""
	check(t, "Tenant", acme)(d.Tenant("t1"))
	check(t, "TenantByName", borg)(d.TenantByName("borg"))
	check(t, "User", hashless)(d.User("u1"))
	check(t, "UserByLogin", hashless)(d.UserByLogin("t1", "ann"))
	check(t, "UserByLogin of another tenant", annToo)(d.UserByLogin("t2", "ann"))
	check(t, "Agent", box)(d.Agent("a1"))
	check(t, "AgentByName", boxToo)(d.AgentByName("t2", "box"))
	check(t, "Location", west)(d.Location("l1"))
	check(t, "LocationByName", west)(d.LocationByName("west"))
	check(t, "Grant", weekly)(d.Grant("g1"))
	check(t, "GrantByName", weekly)(d.GrantByName("t1", "weekly"))
	check(t, "GrantByName of another tenant", foreign)(d.GrantByName("t2", "weekly"))
	check(t, "CertificateRevoked", "stolen")(d.CertificateRevoked("0a1b"))
	check(t, "RevokedCertificate", stolen)(d.RevokedCertificate("c1"))
	check(t, "Revocation", first)(d.Revocation("r1"))
	for what, list := range map[string][2]any{
		"GrantsFor ann":    {d.GrantsFor("t1", "u1"), []storage.Grant{annual, weekly}},
		"GrantsFor nobody": {d.GrantsFor("t1", ""), []storage.Grant{weekly}},
		"Revocations":      {d.Revocations(), []storage.Revocation{first, second}},
		"SessionEnded":     {d.SessionEnded("s1"), true},
		"another session":  {d.SessionEnded("s2"), false},
		"Sequence":         {d.Sequence(), int64(len(everything()))},
	} {
		if !reflect.DeepEqual(list[0], list[1]) {
			t.Errorf("%s = %+v, want %+v", what, list[0], list[1])
		}
	}
	absent(t, "Agent of no such name")(d.AgentByName("t1", "nobox"))
	absent(t, "a certificate that is not revoked")(d.CertificateRevoked("0a1c"))
	absent(t, "the same by id")(d.RevokedCertificate("c2"))
	absent(t, "an expired revocation")(d.Revocation("r3"))
}

func checkNothing(t *testing.T, d *directory.Directory) {
	t.Helper()
	absent(t, "Tenant")(d.Tenant("t1"))
	absent(t, "TenantByName")(d.TenantByName("acme"))
	absent(t, "User")(d.User("u1"))
	absent(t, "UserByLogin")(d.UserByLogin("t1", "ann"))
	absent(t, "Agent")(d.Agent("a1"))
	absent(t, "AgentByName")(d.AgentByName("t1", "box"))
	absent(t, "Location")(d.Location("l1"))
	absent(t, "LocationByName")(d.LocationByName("west"))
	absent(t, "Grant")(d.Grant("g1"))
	absent(t, "GrantByName")(d.GrantByName("t1", "weekly"))
	absent(t, "CertificateRevoked")(d.CertificateRevoked("0a1b"))
	absent(t, "Revocation")(d.Revocation("r1"))
	if g, r := d.GrantsFor("t1", "u1"), d.Revocations(); len(g)+len(r) > 0 || d.SessionEnded("s1") {
		t.Errorf("something is left: %v, %v", g, r)
	}
}

func check[T any](t *testing.T, what string, want T) func(T, bool) {
	t.Helper()
	return func(got T, ok bool) {
		t.Helper()
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s = %+v, %v; want %+v", what, got, ok, want)
		}
	}
}

func absent(t *testing.T, what string) func(any, bool) {
	t.Helper()
	return func(got any, ok bool) {
		t.Helper()
		if ok {
			t.Errorf("%s = %+v, want nothing", what, got)
		}
	}
}

// What a look-up gives out is the caller's: changing it changes nobody else's.
func TestLookUpsShareNothing(t *testing.T) {
	f := newFake()
	f.commit(everything()...)
	d := open(t, f)
	byID, _ := d.Grant("g1")
	byName, _ := d.GrantByName("t1", "weekly")
	listed := d.GrantsFor("t1", "")[0]
	for _, g := range []storage.Grant{byID, byName, listed} {
		g.Actions[0] = "s3:*"
	}
	revocations := d.Revocations()
	revocations[0].TargetID = "spoilt"
	check(t, "Grant", weekly)(d.Grant("g1"))
	if got := d.Revocations()[0]; got != first {
		t.Errorf("Revocations = %+v", got)
	}
}

// A name that is used again belongs to the new entity, also where the old one's
// end becomes known later.
func TestNameUsedAgain(t *testing.T) {
	f := newFake()
	f.commit(put(acme), put(box))
	d := start(t, f)
	successor := box
	successor.ID = "a7"
	f.commit(put(successor), gone(storage.KindAgent, "a1"))
	synced(t, d)
	check(t, "AgentByName", successor)(d.AgentByName("t1", "box"))
	absent(t, "the old agent")(d.Agent("a1"))
}

// A grant that moves between names, users and tenants stands in one list only.
func TestGrantLists(t *testing.T) {
	f := newFake()
	f.commit(put(acme), put(borg), put(weekly))
	d := start(t, f)
	names := func(tenantID, userID string) (names []string) {
		synced(t, d)
		for _, g := range d.GrantsFor(tenantID, userID) {
			names = append(names, g.Name)
		}
		return names
	}
	for _, n := range []string{"zulu", "alpha", "mike"} {
		g := weekly
		g.ID, g.Name = "g-"+n, n
		f.commit(put(g))
	}
	if got := names("t1", ""); !slices.Equal(got, []string{"alpha", "mike", "weekly", "zulu"}) {
		t.Errorf("sorted: %q", got)
	}
	moved := weekly
	moved.Name, moved.TenantID, moved.UserID = "aaa", "t2", "u2"
	f.commit(put(moved), gone(storage.KindGrant, "g-mike"))
	if got := names("t1", ""); !slices.Equal(got, []string{"alpha", "zulu"}) {
		t.Errorf("after a move and a deletion: %q", got)
	}
	if got := names("t2", "u2"); !slices.Equal(got, []string{"aaa"}) {
		t.Errorf("where it moved: %q", got)
	}
	absent(t, "the old name")(d.GrantByName("t1", "weekly"))
}

func TestOpenFails(t *testing.T) {
	f := newFake()
	f.away = storage.ErrUnavailable
	if _, err := directory.Open(t.Context(), f, logger(t)); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Open = %v", err)
	}
}
