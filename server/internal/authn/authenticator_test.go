package authn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestNewReportsAllTogether(t *testing.T) {
	_, err := New(Config{
		Operators: map[string]Role{"Ada": RoleAdmin, "eve": "root"},
		Services:  map[string]ServiceRule{"a/b": {}, "restore": {Tenants: []string{"ACME"}}},
	})
	if err == nil {
		t.Fatal("made of nothing")
	}
	for _, say := range []string{"trust domain", "directory", "users", "sessions", "tokens", "passwords", "trail", `"Ada"`, `"root"`, `"a/b"`, `"ACME"`} {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("%s is not reported: %v", say, err)
		}
	}
}

func TestSessionsMustNotOutliveKeys(t *testing.T) {
	cfg := newSite(t).cfg
	cfg.SessionLifetime = DefaultSessionLifetime + 1
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "outlive") {
		t.Error(err)
	}
}

// The broker's own parts must fit.
var (
	_ Directory      = (*directory.Directory)(nil)
	_ Trail          = (*audit.Trail)(nil)
	_ Users          = storage.Users(nil)
	_ Sessions       = storage.Sessions(nil)
	_ Keys           = storage.Keys(nil)
	_ RevocationList = (*pki.Reloader)(nil)
)

// list is a revocation list.
type list map[string]bool

func (l list) Revoked(serial string) bool   { return l[serial] }
func (l list) Vouched(vouchers string) bool { return !l[vouchers] }

// Every way in which a principal ceases to be good, with its reason: for an
// open stream, which asks Check, and for the next call.
func TestCheck(t *testing.T) {
	revoked := list{}
	for name, c := range map[string]struct {
		spoil func(s *site, p Principal, session Session)
		want  reason.Reason
	}{
		"nothing": {func(*site, Principal, Session) {}, ""},
		"certificate revoked": {func(s *site, p Principal, _ Session) {
			s.world.change(func() { s.world.revoked[p.Certificate.Serial] = "stolen" })
		}, reason.CertificateRevoked},
		"on the revocation list": {func(_ *site, p Principal, _ Session) { revoked[p.Certificate.Serial] = true }, reason.CertificateRevoked},
		"certificate ended":      {func(_ *site, p Principal, _ Session) { pass(time.Until(p.Certificate.NotAfter) + 1) }, reason.CertificateExpired},
		"tenant disabled": {func(s *site, p Principal, _ Session) {
			edit(s, s.world.tenants, p.TenantID, func(t *storage.Tenant) { t.Disabled = true })
		}, reason.TenantDisabled},
		"tenant deleted": {func(s *site, p Principal, _ Session) { remove(s, s.world.tenants, p.TenantID) }, reason.TenantUnknown},
		"agent disabled": {func(s *site, p Principal, _ Session) {
			edit(s, s.world.agents, p.AgentID, func(a *storage.Agent) { a.Disabled = true })
		}, reason.AgentDisabled},
		"agent deleted": {func(s *site, p Principal, _ Session) { remove(s, s.world.agents, p.AgentID) }, reason.AgentUnknown},
		"user disabled": {func(s *site, p Principal, _ Session) {
			edit(s, s.world.users, p.UserID, func(u *storage.User) { u.Disabled = true })
		}, reason.UserDisabled},
		"user deleted": {func(s *site, p Principal, _ Session) { remove(s, s.world.users, p.UserID) }, reason.UserDisabled},
		"password changed": {func(s *site, p Principal, _ Session) {
			edit(s, s.world.users, p.UserID, func(u *storage.User) { u.PasswordVersion++ })
		}, reason.PasswordChanged},
		"session ended": {func(s *site, p Principal, _ Session) {
			if err := s.EndSession(context.Background(), p); err != nil {
				s.t.Fatal(err)
			}
		}, reason.SessionEnded},
		"session expired": {func(_ *site, _ Principal, session Session) { pass(time.Until(session.Expires)) }, reason.TokenExpired},
		"key replaced": {func(s *site, _ Principal, _ Session) {
			if err := s.keyring.Replace(context.Background()); err != nil {
				s.t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(cfg *Config) { cfg.RevocationList = revoked })
				peer := s.agent("acme", "nas-1")
				session := s.session(peer)
				p, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token))
				if err != nil {
					t.Fatal(err)
				}
				c.spoil(s, p, session)
				if err := s.Check(p); reason.Of(err) != c.want {
					t.Errorf("Check: %v", err)
				}
				want := c.want
				if name == "key replaced" {
					want = reason.TokenInvalid // the stream goes on, the token does not
				}
				if _, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token)); reason.Of(err) != want {
					t.Errorf("the next call: %v", err)
				}
				if name == "certificate ended" {
					want = reason.TokenExpired // no session outlives its certificate
				}
				if _, err := s.Introspect(t.Context(), session.Token); reason.Of(err) != want {
					t.Errorf("Introspect: %v", err)
				}
			})
		})
	}
}

func edit[T any](s *site, all map[string]T, id string, f func(*T)) {
	s.world.change(func() {
		v := all[id]
		f(&v)
		all[id] = v
	})
}

func remove[T any](s *site, all map[string]T, id string) {
	s.world.change(func() { delete(all, id) })
}

func TestCheckIsNotFooled(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	good, err := s.Authenticate(t.Context(), peer, getCredentials, basic("alice@acme", password))
	if err != nil {
		t.Fatal(err)
	}
	bob, _ := s.world.UserByLogin(func() string { u, _ := s.world.TenantByName("umbra"); return u.ID }(), "bob")
	umbra, _ := s.world.TenantByName("umbra")
	foreign, _ := s.world.AgentByName(umbra.ID, "nas-1")
	for name, c := range map[string]struct {
		change func(*Principal)
		want   reason.Reason
	}{
		"nobody":            {func(p *Principal) { *p = Principal{} }, reason.CertificateRequired},
		"no kind":           {func(p *Principal) { p.Kind = "" }, reason.CertificateRequired},
		"strange kind":      {func(p *Principal) { p.Kind = "robot" }, reason.CertificateIdentityInvalid},
		"other's user":      {func(p *Principal) { p.UserID = bob.ID }, reason.UserDisabled},
		"other's agent":     {func(p *Principal) { p.AgentID = foreign.ID }, reason.AgentUnknown},
		"certificate early": {func(p *Principal) { p.Certificate.NotBefore = time.Now().Add(time.Hour) }, reason.CertificateExpired},
		"raised role":       {func(p *Principal) { p.Kind, p.Name, p.Role = Operator, "vera", RoleAdmin }, reason.OperatorUnknown},
		// Its end is somebody else's to watch.
		"session without end": {func(p *Principal) { p.SessionID = newID() }, ""},
		// A login may know of a new password before the directory does.
		"password ahead": {func(p *Principal) { p.PasswordVersion++ }, ""},
	} {
		p := good
		c.change(&p)
		if err := s.Check(p); reason.Of(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownParties(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]struct {
		peer Peer
		want reason.Reason
	}{
		"tenant":   {s.agent("nobody", "nas-1"), reason.TenantUnknown},
		"agent":    {s.agent("acme", "nas-2"), reason.AgentUnknown},
		"service":  {s.service("spy"), reason.ServiceUnknown},
		"operator": {s.operator("mallory"), reason.OperatorUnknown},
		"kind":     {Peer{Kind: "robot", Certificate: s.operator("ada").Certificate}, reason.CertificateIdentityInvalid},
	} {
		if _, err := s.Authenticate(t.Context(), c.peer, healthCheck, nil); !reason.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		records := s.trail.take()
		if len(records) != 1 || records[0].Event != "call.refused" || records[0].Reason != string(c.want) || records[0].Actor != c.peer.Certificate.ID ||
			records[0].CertificateSerial != c.peer.Certificate.Serial || records[0].Detail["call"] != healthCheck {
			t.Errorf("%s: audited %+v", name, records)
		}
	}
	if _, err := s.Authenticate(t.Context(), Peer{Address: "192.0.2.1:1"}, healthCheck, nil); !reason.Is(err, reason.CertificateRequired) {
		t.Error(err)
	}
	if records := s.trail.take(); len(records) != 0 {
		t.Errorf("nobody was audited: %+v", records)
	}
}

// What another replica was told a moment ago holds here: a new agent is not
// sent away, which would keep it away for minutes, and neither is a new user.
func TestPartiesMadeOnAnotherReplica(t *testing.T) {
	s := newSite(t)
	fresh := func(add func()) { s.world.change(func() { s.world.late = append(s.world.late, add) }) }
	acme, _ := s.world.TenantByName("acme")
	fresh(func() {
		s.world.agents["late"] = storage.Agent{Meta: storage.Meta{ID: "late"}, TenantID: acme.ID, Name: "nas-9"}
	})
	if p, err := s.Authenticate(t.Context(), s.agent("acme", "nas-9"), healthCheck, nil); err != nil || p.AgentID != "late" {
		t.Errorf("a new agent: %v", err)
	}
	fresh(func() { s.world.tenants["t9"] = storage.Tenant{Meta: storage.Meta{ID: "t9"}, Name: "nova"} })
	fresh(func() {
		s.world.agents["a9"] = storage.Agent{Meta: storage.Meta{ID: "a9"}, TenantID: "t9", Name: "nas"}
	})
	if p, err := s.Authenticate(t.Context(), s.agent("nova", "nas"), healthCheck, nil); err != nil || p.TenantID != "t9" {
		t.Errorf("a new tenant: %v", err)
	}
	alice, _ := s.world.UserByLogin(acme.ID, "alice")
	known, err := s.world.GetUser(t.Context(), alice.ID)
	if err != nil {
		t.Fatal(err)
	}
	fresh(func() {
		known.ID, known.Login = "u9", "anna"
		s.world.users["u9"] = known
	})
	if p, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), getSession, basic("anna@acme", password)); err != nil || p.UserID != "u9" {
		t.Errorf("a new user: %v", err)
	}
}

// A token is checked against what every replica knew when the call began; if
// that cannot be known, nobody is let in.
func TestTokensAreCheckedAgainstTheLatest(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Fresh = c.Directory.Sync })
	peer := s.agent("acme", "nas-1")
	session := s.session(peer)
	if _, err := s.Authenticate(t.Context(), peer, getSession, bearer(session.Token)); err != nil {
		t.Fatal(err)
	}
	acme, _ := s.world.TenantByName("acme")
	alice, _ := s.world.UserByLogin(acme.ID, "alice")
	s.world.change(func() {
		s.world.late = append(s.world.late, func() {
			u := s.world.users[alice.ID]
			u.Disabled = true
			s.world.users[alice.ID] = u
		})
	})
	if _, err := s.Authenticate(t.Context(), peer, getSession, bearer(session.Token)); !reason.Is(err, reason.UserDisabled) {
		t.Errorf("disabled on another replica: %v", err)
	}
	synced := s.world.synced
	if _, err := s.Authenticate(t.Context(), peer, getSession, bearer(secret.New("forged"))); err == nil || s.world.synced != synced {
		t.Errorf("a forged token cost a look: %v", err)
	}
	s.world.change(func() { s.world.fail = storage.ErrUnavailable })
	if _, err := s.Authenticate(t.Context(), peer, getSession, bearer(session.Token)); !reason.Is(err, reason.StorageUnavailable) {
		t.Errorf("without storage: %v", err)
	}
}

// What a caller sends where no login is asked for is not looked at: tools send
// the same metadata with reflection, and a health check must not cost a hash.
func TestLoginIsIgnoredWhereNoneIsNeeded(t *testing.T) {
	s := newSite(t)
	done := s.pool.Stats().Done
	for _, authorization := range [][]string{basic("alice@acme", "wrong-wrong-wrong"), {"garbage"}, {"a", "b"}} {
		p, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), healthCheck, authorization)
		if err != nil || p.UserID != "" || p.TenantID == "" || p.AgentID == "" {
			t.Errorf("%+v, %v", p, err)
		}
		for _, peer := range []Peer{s.service("restore"), s.operator("vera")} {
			if p, err := s.Authenticate(t.Context(), peer, healthCheck, authorization); err != nil || p.UserID != "" {
				t.Errorf("%+v, %v", p, err)
			}
		}
	}
	if s.pool.Stats().Done != done {
		t.Error("a password was hashed")
	}
}

// Repeated refusals must not fill the audit trail, and what was left out is
// counted.
func TestRefusalsAreRecordedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		peer := s.agent("acme", "nas-1")
		hostile := "/\x00" + strings.Repeat("x", 1<<20)
		for range 100 {
			if _, err := s.Authenticate(t.Context(), peer, hostile, nil); !reason.Is(err, reason.CallNotAllowed) {
				t.Fatal(err)
			}
		}
		records := s.trail.take()
		if len(records) != 1 || records[0].Detail["call"] != "unknown" || records[0].Peer != peer.Address || records[0].RequestID != peer.RequestID {
			t.Fatalf("%d records: %+v", len(records), records)
		}
		// Another reason, and another certificate, are news.
		if _, err := s.Authenticate(t.Context(), peer, getSession, []string{"Bearer x"}); !reason.Is(err, reason.TokenInvalid) {
			t.Error(err)
		}
		if _, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), hostile, nil); !reason.Is(err, reason.CallNotAllowed) {
			t.Error(err)
		}
		if records := s.trail.take(); len(records) != 2 {
			t.Errorf("%+v", records)
		}
		pass(quietTime)
		if _, err := s.Authenticate(t.Context(), peer, hostile, nil); !reason.Is(err, reason.CallNotAllowed) {
			t.Error(err)
		}
		if records := s.trail.take(); len(records) != 1 || records[0].Detail["unrecorded"] != "99" {
			t.Errorf("%+v", records)
		}
	})
}

func TestQuietIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := quiet{seen: map[string]*lately{}}
		for i := range maxQuiet + 10 {
			if _, due := q.due(fmt.Sprint(i), time.Now()); !due {
				t.Fatal("a first refusal was left out")
			}
		}
		if len(q.seen) != maxQuiet {
			t.Errorf("%d are remembered", len(q.seen))
		}
		pass(quietTime)
		q.due("another", time.Now())
		if len(q.seen) != 1 {
			t.Errorf("%d are remembered", len(q.seen))
		}
	})
}

func TestAllowDelegation(t *testing.T) {
	s := newSite(t, func(cfg *Config) {
		cfg.Services = map[string]ServiceRule{
			"restore": {Tenants: []string{"acme"}, Access: []string{"restore", "maintain"}},
			"all":     {Tenants: []string{"*"}, Access: []string{"*"}},
			"idle":    {},
		}
	})
	for _, c := range []struct {
		kind                 Kind
		name, tenant, access string
		want                 bool
	}{
		{Service, "restore", "acme", "restore", true},
		{Service, "restore", "acme", "maintain", true},
		{Service, "restore", "acme", "backup", false},
		{Service, "restore", "umbra", "restore", false},
		{Service, "restore", "*", "restore", false},
		{Service, "restore", "acme", "", false},
		{Service, "all", "umbra", "backup", true},
		{Service, "all", "", "backup", false},
		{Service, "idle", "acme", "restore", false},
		{Service, "spy", "acme", "restore", false},
		{Operator, "all", "acme", "restore", false},
	} {
		err := s.AllowDelegation(Principal{Peer: Peer{Kind: c.kind, Name: c.name}}, c.tenant, c.access)
		if (err == nil) != c.want || err != nil && !reason.Is(err, reason.DelegationDenied) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestIntrospect(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	session := s.session(peer)
	want, err := s.Authenticate(t.Context(), peer, getSession, bearer(session.Token))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Introspect(t.Context(), session.Token)
	if err != nil {
		t.Fatal(err)
	}
	// What the token cannot know: the connection.
	want.Address, want.RequestID = "", ""
	if !got.Certificate.NotBefore.Equal(want.Certificate.NotBefore) {
		t.Errorf("the certificate begins %s", got.Certificate.NotBefore)
	}
	got.Certificate.NotBefore = want.Certificate.NotBefore
	if !got.Certificate.NotAfter.Equal(want.Certificate.NotAfter) {
		t.Errorf("the certificate ends %s", got.Certificate.NotAfter)
	}
	got.Certificate.NotAfter = want.Certificate.NotAfter
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, err := s.Introspect(t.Context(), secret.New("x")); !reason.Is(err, reason.TokenInvalid) {
		t.Error(err)
	}
}

func TestRunSweepsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- s.Run(ctx) }()
		pass(sweepInterval + time.Second)
		s.world.change(func() { s.world.fail = storage.ErrUnavailable })
		pass(sweepInterval)
		synctest.Wait()
		s.world.change(func() {
			if len(s.world.swept) != 2 || time.Since(s.world.swept[1]) < sweepGrace {
				t.Errorf("swept before %v", s.world.swept)
			}
		})
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// Check is asked for every lease and stream at every change.
func BenchmarkCheck(b *testing.B) {
	s := newSite(b)
	peer := s.agent("acme", "nas-1")
	p, err := s.Authenticate(b.Context(), peer, getSession, bearer(s.session(peer).Token))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Check(p); err != nil {
			b.Fatal(err)
		}
	}
}

var errDisk = errors.New("no space left on device")

// A stream's context has no end of its own, or one that the caller chose: deciding
// who opens it has one.
func TestDecidingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		known, stranger := s.agent("acme", "nas-1"), s.agent("acme", "nas-9")
		s.world.stuck = true
		patient, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for of, ctx := range map[string]context.Context{"without an end": t.Context(), "with a late end": patient} {
			for name, call := range map[string]func() error{
				"a login": func() error {
					_, err := s.Authenticate(ctx, known, createSession, basic("alice@acme", password))
					return err
				},
				"unknown": func() error { _, err := s.Authenticate(ctx, stranger, getCredentials, nil); return err },
			} {
				began := time.Now()
				if err := call(); err == nil || time.Since(began) > time.Minute {
					t.Errorf("%s, %s: %v after %s", name, of, err, time.Since(began))
				}
			}
		}
	})
}

// Whose authority is dropped is refused from then on, also where only the token
// is seen; who came without a handshake is not asked for one.
func TestAuthorityNotTrustedAnyMore(t *testing.T) {
	dropped := list{}
	s := newSite(t, func(cfg *Config) { cfg.RevocationList = dropped })
	peer := s.agent("acme", "nas-1")
	peer.Certificate.Vouchers = "authority/1"
	session := s.session(peer)
	p, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token))
	if err != nil || s.Check(p) != nil {
		t.Fatal(err)
	}
	dropped["authority/1"], dropped[""] = true, true
	if err := s.Check(p); !reason.Is(err, reason.CertificateRevoked) {
		t.Errorf("Check: %v", err)
	}
	if _, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token)); !reason.Is(err, reason.CertificateRevoked) {
		t.Errorf("the next call: %v", err)
	}
	if _, err := s.Introspect(t.Context(), session.Token); !reason.Is(err, reason.CertificateRevoked) {
		t.Errorf("Introspect: %v", err)
	}
	if err := s.Check(Principal{Peer: s.agent("acme", "nas-1"), TenantID: p.TenantID, AgentID: p.AgentID}); err != nil {
		t.Errorf("without a handshake: %v", err)
	}
}

// A certificate of the provider's own PKI that begins before an agent of the
// name was deleted is refused.
func TestCertificateOfADeletedAgent(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		s := newSite(t, func(cfg *Config) { cfg.ForeignAuthority = foreign })
		peer := s.agent("acme", "nas-1")
		p, err := s.Authenticate(t.Context(), peer, healthCheck, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.changeAgent(p.AgentID, func(a *storage.Agent) { a.CertificatesAfter = peer.Certificate.NotBefore })
		if err := s.Check(p); foreign != reason.Is(err, reason.CertificateRevoked) {
			t.Errorf("foreign %v: %v", foreign, err)
		}
		s.changeAgent(p.AgentID, func(a *storage.Agent) { a.CertificatesAfter = peer.Certificate.NotBefore.Add(-time.Second) })
		if err := s.Check(p); err != nil {
			t.Errorf("a certificate that began after the deletion: %v", err)
		}
	}
}

// Operators and services can be replaced while the broker runs.
func TestSetParties(t *testing.T) {
	s := newSite(t, func(cfg *Config) {
		cfg.Services = map[string]ServiceRule{"restorer": {Tenants: []string{"acme"}, Access: []string{"restore"}}}
	})
	tenant, _ := s.cfg.Directory.TenantByName("acme")
	p := Principal{
		Peer:     Peer{Kind: Service, Name: "restorer", Certificate: Certificate{ID: "spiffe://x", NotAfter: time.Now().Add(time.Hour)}},
		TenantID: tenant.ID, Purpose: "x",
	}
	p.Tenant = "acme"
	if err := s.Check(p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		services map[string]ServiceRule
		want     reason.Reason
	}{
		{nil, reason.ServiceUnknown},
		{map[string]ServiceRule{"restorer": {Tenants: []string{"other"}, Access: []string{"restore"}}}, reason.DelegationDenied},
		{map[string]ServiceRule{"restorer": {Tenants: []string{"*"}}}, reason.DelegationDenied},
	} {
		if err := s.SetParties(nil, c.services); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(p); !reason.Is(err, c.want) {
			t.Errorf("%v: got %v, want %s", c.services, err, c.want)
		}
	}
	bad := map[string]ServiceRule{"Restorer": {Tenants: []string{"A"}}}
	if err := s.SetParties(map[string]Role{"alice": "king"}, bad); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v", err)
	}
}
