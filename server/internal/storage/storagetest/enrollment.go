package storagetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var enrollmentCases = map[string]func(*testing.T, Opener){
	"RecordCertificate":      one(testRecordCertificate),
	"CertificatesOf":         one(testCertificatesOf),
	"RevokeCertificate":      one(testRevokeCertificate),
	"RevokeLine":             one(testRevokeLine),
	"Tombstones":             one(testTombstones),
	"RevokeForeign":          one(testRevokeForeignCertificate),
	"CertificatesOutlive":    one(testCertificatesOutliveTheirAgent),
	"DeletionRevokes":        one(testDeletionRevokesCertificates),
	"DeletionTakesTokens":    one(testDeletionTakesJoinTokens),
	"JoinTokens":             one(testJoinTokens),
	"JoinTokenRace":          one(testJoinTokenRace),
	"SweepJoinTokens":        one(testSweepJoinTokens),
	"EndSession":             one(testEndSession),
	"SweepSessions":          one(testSweepSessions),
	"TimesAreKeptToTheMicro": one(testTimesAreKeptToTheMicrosecond),
}

func certificate(t *testing.T, serial string) storage.Certificate {
	return storage.Certificate{
		Meta: newMeta(t), Serial: serial, Thumbprint: "5f" + serial, Subject: "spiffe://example.com/tenant/t/agent/a",
		NotBefore: moment(0), NotAfter: moment(60),
	}
}

func testRecordCertificate(t *testing.T, s storage.Store) {
	ctx := t.Context()
	given := certificate(t, "01ab")
	given.AgentID = addAgent(t, s, addTenant(t, s, "t").ID, "a").ID
	var stored storage.Certificate
	told(t, s, func() { stored = must[storage.Certificate](t)(s.RecordCertificate(ctx, given)) },
		storage.Change{Kind: storage.KindCertificate, ID: given.ID})
	want := given
	want.Meta = stored.Meta
	want.NotBefore, want.NotAfter = kept(given.NotBefore), kept(given.NotAfter)
	same(t, "stored", stored, want)
	same(t, "read", must[storage.Certificate](t)(s.GetCertificate(ctx, given.ID)), stored)
	told(t, s, func() {
		_, err := s.RecordCertificate(ctx, certificate(t, "01ab"))
		wantError(t, err, storage.ErrExists)
		_, err = s.RecordCertificate(ctx, certificate(t, ""))
		wantError(t, err, storage.ErrInvalid)
		orphan := certificate(t, "02")
		orphan.AgentID = newID(t)
		_, err = s.RecordCertificate(ctx, orphan)
		wantError(t, err, storage.ErrNotFound)
		_, err = s.GetCertificate(ctx, newID(t))
		wantError(t, err, storage.ErrNotFound)
	})
}

func testCertificatesOf(t *testing.T, s storage.Store) {
	ctx := t.Context()
	agent := addAgent(t, s, addTenant(t, s, "t").ID, "a")
	for serial, end := range map[string]int{"a": 10, "b": 30, "c": 20} {
		c := certificate(t, serial)
		c.AgentID, c.NotAfter = agent.ID, moment(end)
		must[storage.Certificate](t)(s.RecordCertificate(ctx, c))
	}
	without := certificate(t, "d")
	without.AgentID, without.NotAfter = agent.ID, time.Time{}
	must[storage.Certificate](t)(s.RecordCertificate(ctx, without))
	must[storage.Certificate](t)(s.RecordCertificate(ctx, certificate(t, "e"))) // a service's
	var serials []string
	for _, c := range must[[]storage.Certificate](t)(s.CertificatesOf(ctx, agent.ID)) {
		serials = append(serials, c.Serial)
	}
	same(t, "latest end first", serials, []string{"b", "c", "a", "d"})
	for _, agent := range []string{"", "other"} {
		if found := must[[]storage.Certificate](t)(s.CertificatesOf(ctx, agent)); len(found) != 0 {
			t.Errorf("certificates of %q: %v", agent, found)
		}
	}
}

func testRevokeCertificate(t *testing.T, s storage.Store) {
	ctx := t.Context()
	stored := must[storage.Certificate](t)(s.RecordCertificate(ctx, certificate(t, "aa")))
	revocation := storage.Certificate{Serial: "aa", RevokedAt: moment(5), RevocationReason: "stolen"}
	var revoked storage.Certificate
	told(t, s, func() { revoked = must[storage.Certificate](t)(s.RevokeCertificate(ctx, revocation)) },
		storage.Change{Kind: storage.KindCertificate, ID: stored.ID})
	want := stored
	want.Revision, want.UpdatedAt = 2, revoked.UpdatedAt
	want.RevokedAt, want.RevocationReason = kept(moment(5)), "stolen"
	same(t, "revoked", revoked, want)

	told(t, s, func() { // again: nothing changes
		again := must[storage.Certificate](t)(s.RevokeCertificate(ctx, storage.Certificate{
			Meta: newMeta(t), Serial: "aa", RevokedAt: moment(9), RevocationReason: "again"}))
		same(t, "revoked again", again, revoked)
	})
	same(t, "read", must[storage.Certificate](t)(s.GetCertificate(ctx, stored.ID)), revoked)

	unrevoked := must[storage.Certificate](t)(s.RecordCertificate(ctx, certificate(t, "bb")))
	now := time.Now().Add(-time.Second)
	got := must[storage.Certificate](t)(s.RevokeCertificate(ctx, storage.Certificate{Serial: unrevoked.Serial}))
	if got.RevokedAt.Before(now) || got.RevokedAt.After(time.Now()) {
		t.Errorf("revoked without a time at %v, want now", got.RevokedAt)
	}

	race(4, func(i int) error {
		return result(s.RevokeCertificate(ctx, storage.Certificate{
			Meta: storage.Meta{ID: "raced"}, Serial: "cc", RevokedAt: moment(i), RevocationReason: "race"}))
	})
	if raced := must[storage.Certificate](t)(s.GetCertificate(ctx, "raced")); raced.Revision != 1 {
		t.Errorf("revision %d after four revocations at once", raced.Revision)
	}
}

// Revoking one certificate of a line revokes all of them, and nothing more can
// be renewed from it.
func testRevokeLine(t *testing.T, s storage.Store) {
	ctx := t.Context()
	record := func(serial, from string) storage.Certificate {
		t.Helper()
		c := certificate(t, serial)
		c.Lineage = from
		return must[storage.Certificate](t)(s.RecordCertificate(ctx, c))
	}
	revoke := func(serial string) storage.Certificate {
		t.Helper()
		return must[storage.Certificate](t)(s.RevokeCertificate(ctx, storage.Certificate{Meta: newMeta(t), Serial: serial, RevocationReason: "stolen"}))
	}
	first, second, stolen, third := record("a1", ""), record("a2", "a1"), record("a3", "a1"), record("a4", "a2")
	stranger := record("b1", "")
	for _, c := range []storage.Certificate{second, stolen, third} {
		if c.Lineage != "a1" {
			t.Errorf("%s has the line %q", c.Serial, c.Lineage)
		}
	}
	told(t, s, func() { revoke("a4") },
		changesOf(third.ID, first.ID, second.ID, stolen.ID)...)
	for _, c := range []storage.Certificate{first, second, stolen, third} {
		if got := must[storage.Certificate](t)(s.GetCertificate(ctx, c.ID)); got.RevokedAt.IsZero() || got.RevocationReason != "stolen" {
			t.Errorf("%s is not revoked with its line: %v", c.Serial, got)
		}
	}
	if got := must[storage.Certificate](t)(s.GetCertificate(ctx, stranger.ID)); !got.RevokedAt.IsZero() {
		t.Error("a certificate of another line is revoked")
	}
	for _, from := range []string{"a1", "a2", "a4"} {
		late := certificate(t, "a5")
		late.Lineage = from
		_, err := s.RecordCertificate(ctx, late)
		wantError(t, err, storage.ErrConflict)
	}
	// The first of a line need not be known.
	offline := record("c2", "c1")
	revoke("c1")
	if got := must[storage.Certificate](t)(s.GetCertificate(ctx, offline.ID)); got.RevokedAt.IsZero() {
		t.Error("what was renewed from a certificate that storage did not know is not revoked with it")
	}
	// Renewing and revoking at once: whichever is first, none is left.
	record("d1", "")
	race(8, func(i int) error {
		if i == 3 {
			return result(s.RevokeCertificate(ctx, storage.Certificate{Serial: "d1"}))
		}
		c := storage.Certificate{Meta: storage.Meta{ID: fmt.Sprintf("raced-%d", i)}, Serial: fmt.Sprintf("d%d", i+2), Lineage: "d1", NotAfter: moment(60)}
		return result(s.RecordCertificate(ctx, c))
	})
	for i := range 8 {
		got, err := s.GetCertificate(ctx, fmt.Sprintf("raced-%d", i))
		if err == nil && got.RevokedAt.IsZero() {
			t.Errorf("%s outlives its line", got.Serial)
		}
	}
}

// changesOf are changes of certificates, the first as given and the rest in the
// order of their ids.
func changesOf(first string, rest ...string) []storage.Change {
	slices.Sort(rest)
	var all []storage.Change
	for _, id := range append([]string{first}, rest...) {
		all = append(all, storage.Change{Kind: storage.KindCertificate, ID: id})
	}
	return all
}

// An agent knows when the one before it of the same name was deleted, by itself
// or with its tenant.
func testTombstones(t *testing.T, s storage.Store) {
	ctx := t.Context()
	began := time.Now().Add(-time.Millisecond)
	tenant := addTenant(t, s, "t")
	first, other := addAgent(t, s, tenant.ID, "a"), addAgent(t, s, tenant.ID, "b")
	if !first.CertificatesAfter.IsZero() || !other.CertificatesAfter.IsZero() {
		t.Error("the first agent of its name has one before it")
	}
	wantError(t, s.DeleteAgent(ctx, first.ID, 0), nil)
	second := addAgent(t, s, tenant.ID, "a")
	if second.CertificatesAfter.Before(began) || second.CertificatesAfter.After(time.Now()) {
		t.Errorf("the agent before was deleted at %v", second.CertificatesAfter)
	}
	same(t, "read", must[storage.Agent](t)(s.GetAgent(ctx, second.ID)), second)
	if c := addAgent(t, s, tenant.ID, "c"); !c.CertificatesAfter.IsZero() {
		t.Error("an agent of another name has one before it")
	}
	changed := second
	changed.CertificatesAfter = time.Time{}
	_, err := s.UpdateAgent(ctx, changed)
	wantError(t, err, storage.ErrInvalid)

	wantError(t, s.DeleteTenant(ctx, tenant.ID, 0), nil)
	again := addTenant(t, s, "t")
	for _, name := range []string{"a", "b", "never"} {
		if v := addAgent(t, s, again.ID, name); !v.CertificatesAfter.After(second.CertificatesAfter) {
			t.Errorf("agent %s of a tenant's name that was deleted: %v", name, v.CertificatesAfter)
		}
	}
	if v := addAgent(t, s, addTenant(t, s, "t2").ID, "a"); !v.CertificatesAfter.IsZero() {
		t.Error("an agent of another tenant has one before it")
	}
}

func testRevokeForeignCertificate(t *testing.T, s storage.Store) {
	ctx := t.Context()
	foreign := storage.Certificate{Meta: newMeta(t), Serial: "ff", RevokedAt: moment(1), RevocationReason: "lost"}
	var revoked storage.Certificate
	told(t, s, func() { revoked = must[storage.Certificate](t)(s.RevokeCertificate(ctx, foreign)) },
		storage.Change{Kind: storage.KindCertificate, ID: foreign.ID})
	want := foreign
	want.Meta, want.RevokedAt = revoked.Meta, kept(moment(1))
	same(t, "revoked", revoked, want)
	same(t, "read", must[storage.Certificate](t)(s.GetCertificate(ctx, foreign.ID)), revoked)
	_, err := s.RecordCertificate(ctx, certificate(t, "ff"))
	wantError(t, err, storage.ErrExists)
	for _, c := range []storage.Certificate{{Serial: "without-id"}, {Meta: newMeta(t)}} {
		_, err := s.RevokeCertificate(ctx, c)
		wantError(t, err, storage.ErrInvalid)
	}
}

func testCertificatesOutliveTheirAgent(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant := addTenant(t, s, "t")
	agent := addAgent(t, s, tenant.ID, "a")
	c := certificate(t, "aa")
	c.AgentID = agent.ID
	must[storage.Certificate](t)(s.RecordCertificate(ctx, c))
	must[storage.Certificate](t)(s.RevokeCertificate(ctx, storage.Certificate{Serial: "aa"}))
	noError(t, s.DeleteTenant(ctx, tenant.ID, 0))
	if found := must[storage.Certificate](t)(s.GetCertificate(ctx, c.ID)); found.RevokedAt.IsZero() {
		t.Error("the certificate is no longer revoked")
	}
}

// What an agent was enrolled with must not serve the next one of its name.
func testDeletionRevokesCertificates(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant := addTenant(t, s, "t")
	agents := map[string]storage.Agent{"gone": addAgent(t, s, tenant.ID, "gone"), "with": addAgent(t, s, tenant.ID, "with"),
		"other": addAgent(t, s, addTenant(t, s, "o").ID, "gone")}
	record := func(serial, agent string, change func(*storage.Certificate)) storage.Certificate {
		c := certificate(t, serial)
		c.AgentID = agents[agent].ID
		if change != nil {
			change(&c)
		}
		return must[storage.Certificate](t)(s.RecordCertificate(ctx, c))
	}
	good := record("aa", "gone", nil)
	endless := record("ab", "gone", func(c *storage.Certificate) { c.NotAfter = time.Time{} })
	ended := record("ac", "gone", func(c *storage.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	record("ad", "gone", nil)
	stolen := must[storage.Certificate](t)(s.RevokeCertificate(ctx,
		storage.Certificate{Serial: "ad", RevokedAt: moment(-1), RevocationReason: "stolen"}))
	with, other := record("ba", "with", nil), record("ca", "other", nil)

	told(t, s, func() { noError(t, s.DeleteAgent(ctx, agents["gone"].ID, 0)) },
		storage.Change{Kind: storage.KindCertificate, ID: good.ID}, storage.Change{Kind: storage.KindCertificate, ID: endless.ID},
		storage.Change{Kind: storage.KindAgent, ID: agents["gone"].ID})
	got := must[storage.Certificate](t)(s.GetCertificate(ctx, good.ID))
	want := good
	want.Revision, want.UpdatedAt, want.RevokedAt, want.RevocationReason = 2, got.UpdatedAt, got.UpdatedAt, "the agent was deleted"
	same(t, "revoked", got, want)
	if time.Since(got.RevokedAt).Abs() > time.Minute {
		t.Errorf("revoked at %v", got.RevokedAt)
	}
	for _, untouched := range []storage.Certificate{ended, stolen, with, other} {
		same(t, "untouched", must[storage.Certificate](t)(s.GetCertificate(ctx, untouched.ID)), untouched)
	}

	noError(t, s.DeleteTenant(ctx, tenant.ID, 0))
	if c := must[storage.Certificate](t)(s.GetCertificate(ctx, with.ID)); c.RevokedAt.IsZero() || c.RevocationReason != "the tenant was deleted" {
		t.Errorf("the tenant's certificate is %+v", c)
	}
	same(t, "another tenant's", must[storage.Certificate](t)(s.GetCertificate(ctx, other.ID)), other)
	var serials []string
	for _, c := range must[storage.Snapshot](t)(s.Load(ctx)).RevokedCertificates {
		serials = append(serials, c.Serial)
	}
	slices.Sort(serials)
	same(t, "revoked in the snapshot", serials, []string{"aa", "ab", "ad", "ba"})
	// A certificate that was being signed meanwhile comes too late.
	late := certificate(t, "ae")
	late.AgentID = agents["gone"].ID
	_, err := s.RecordCertificate(ctx, late)
	wantError(t, err, storage.ErrNotFound)
}

func testDeletionTakesJoinTokens(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant, other := addTenant(t, s, "t"), addTenant(t, s, "o")
	agent := addAgent(t, s, tenant.ID, "laptop")
	addAgent(t, s, other.ID, "laptop")
	for _, j := range []storage.JoinToken{token(tenant.ID, "unused", 10), token(tenant.ID, "used", 10), token(other.ID, "other", 10)} {
		noError(t, s.CreateJoinToken(ctx, j))
	}
	desktop := token(tenant.ID, "desktop", 10)
	desktop.AgentName = "desktop"
	noError(t, s.CreateJoinToken(ctx, desktop))
	noError(t, s.UseJoinToken(ctx, "used", moment(1)))
	noError(t, s.DeleteAgent(ctx, agent.ID, 0))
	_, err := s.GetJoinToken(ctx, "unused")
	wantError(t, err, storage.ErrNotFound)
	wantError(t, s.UseJoinToken(ctx, "unused", moment(2)), storage.ErrNotFound)
	for _, id := range []string{"used", "other", "desktop"} {
		must[storage.JoinToken](t)(s.GetJoinToken(ctx, id))
	}
}

func token(tenantID, id string, minutes int) storage.JoinToken {
	return storage.JoinToken{ID: id, Hash: []byte{0, 1, 0xff, '\''}, TenantID: tenantID, AgentName: "laptop",
		CreatedBy: "spiffe://example.com/operator/o", CreatedAt: moment(0), Expires: moment(minutes)}
}

func testJoinTokens(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant := addTenant(t, s, "t")
	given := token(tenant.ID, "token", 10)
	told(t, s, func() { noError(t, s.CreateJoinToken(ctx, given)) })
	want := given
	want.CreatedAt, want.Expires = kept(given.CreatedAt), kept(given.Expires)
	same(t, "read", must[storage.JoinToken](t)(s.GetJoinToken(ctx, "token")), want)

	wantError(t, s.CreateJoinToken(ctx, given), storage.ErrExists)
	wantError(t, s.CreateJoinToken(ctx, token(newID(t), "other", 10)), storage.ErrNotFound)
	wantError(t, s.CreateJoinToken(ctx, token(tenant.ID, "", 10)), storage.ErrInvalid)
	withoutEnd := token(tenant.ID, "endless", 10)
	withoutEnd.Expires = time.Time{}
	wantError(t, s.CreateJoinToken(ctx, withoutEnd), storage.ErrInvalid)
	_, err := s.GetJoinToken(ctx, "other")
	wantError(t, err, storage.ErrNotFound)

	wantError(t, s.UseJoinToken(ctx, "token", time.Time{}), storage.ErrInvalid)
	noError(t, s.UseJoinToken(ctx, "token", moment(5)))
	want.UsedAt = kept(moment(5))
	same(t, "used", must[storage.JoinToken](t)(s.GetJoinToken(ctx, "token")), want)
	wantError(t, s.UseJoinToken(ctx, "token", moment(6)), storage.ErrConflict)
	same(t, "used again", must[storage.JoinToken](t)(s.GetJoinToken(ctx, "token")), want)
	wantError(t, s.UseJoinToken(ctx, "other", moment(5)), storage.ErrNotFound)
}

func testJoinTokenRace(t *testing.T, s storage.Store) {
	tenant := addTenant(t, s, "t")
	for _, id := range []string{"a", "b", "c"} {
		noError(t, s.CreateJoinToken(t.Context(), token(tenant.ID, id, 10)))
		errs := race(8, func(i int) error { return s.UseJoinToken(t.Context(), id, moment(i)) })
		oneWinner(t, errs, storage.ErrConflict)
	}
}

func testSweepJoinTokens(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant := addTenant(t, s, "t")
	for id, minutes := range map[string]int{"early": 1, "at": 2, "late": 3} {
		noError(t, s.CreateJoinToken(ctx, token(tenant.ID, id, minutes)))
	}
	told(t, s, func() {
		if n := must[int64](t)(s.SweepJoinTokens(ctx, moment(2))); n != 1 {
			t.Errorf("%d swept, want 1", n)
		}
	})
	_, err := s.GetJoinToken(ctx, "early")
	wantError(t, err, storage.ErrNotFound)
	must[storage.JoinToken](t)(s.GetJoinToken(ctx, "at"))
	must[storage.JoinToken](t)(s.GetJoinToken(ctx, "late"))
}

func testEndSession(t *testing.T, s storage.Store) {
	ctx := t.Context()
	ended := storage.EndedSession{ID: "jti", Expires: moment(10)}
	told(t, s, func() { noError(t, s.EndSession(ctx, ended)) }, storage.Change{Kind: storage.KindSession, ID: "jti"})
	told(t, s, func() { noError(t, s.EndSession(ctx, storage.EndedSession{ID: "jti", Expires: moment(20)})) })
	same(t, "read", must[storage.EndedSession](t)(s.GetEndedSession(ctx, "jti")),
		storage.EndedSession{ID: "jti", Expires: kept(moment(10))})
	_, err := s.GetEndedSession(ctx, "other")
	wantError(t, err, storage.ErrNotFound)
	wantError(t, s.EndSession(ctx, storage.EndedSession{ID: "endless"}), storage.ErrInvalid)
	wantError(t, s.EndSession(ctx, storage.EndedSession{Expires: moment(10)}), storage.ErrInvalid)
	for _, err := range race(8, func(int) error {
		return s.EndSession(ctx, storage.EndedSession{ID: "raced", Expires: moment(1)})
	}) {
		noError(t, err)
	}
}

func testSweepSessions(t *testing.T, s storage.Store) {
	ctx := t.Context()
	for id, minutes := range map[string]int{"earlier": 0, "early": 1, "at": 2, "late": 3} {
		noError(t, s.EndSession(ctx, storage.EndedSession{ID: id, Expires: moment(minutes)}))
	}
	told(t, s, func() {
		if n := must[int64](t)(s.SweepSessions(ctx, moment(2))); n != 2 {
			t.Errorf("%d swept, want 2", n)
		}
		if n := must[int64](t)(s.SweepSessions(ctx, moment(2))); n != 0 {
			t.Errorf("%d swept again", n)
		}
	})
	_, err := s.GetEndedSession(ctx, "early")
	wantError(t, err, storage.ErrNotFound)
	must[storage.EndedSession](t)(s.GetEndedSession(ctx, "at"))
	must[storage.EndedSession](t)(s.GetEndedSession(ctx, "late"))
}

func testTimesAreKeptToTheMicrosecond(t *testing.T, s storage.Store) {
	ctx := t.Context()
	for id, at := range map[string]time.Time{
		"nano":       moment(0),
		"rounded":    time.Date(2026, 1, 1, 0, 0, 0, 999_999_999, time.UTC),
		"before":     time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		"epoch":      time.Unix(0, 0),
		"year one":   time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC),
		"year 9999":  time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("west", -11*3600)),
		"monotonic":  time.Now(),
		"leap day":   time.Date(2028, 2, 29, 12, 0, 0, 1000, time.UTC),
		"one micros": time.Unix(0, 1000),
	} {
		noError(t, s.EndSession(ctx, storage.EndedSession{ID: id, Expires: at}))
		got := must[storage.EndedSession](t)(s.GetEndedSession(ctx, id)).Expires
		want := kept(at)
		if !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %v is kept as %v", id, at, got)
		}
	}
}
