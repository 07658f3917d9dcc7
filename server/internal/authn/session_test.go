package authn

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestPasswordLogin(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	p, err := s.Authenticate(t.Context(), peer, getCredentials, basic("Alice@ACME", password))
	if err != nil {
		t.Fatal(err)
	}
	tenant, _ := s.world.TenantByName("acme")
	agent, _ := s.world.AgentByName(tenant.ID, "nas-1")
	user, _ := s.world.UserByLogin(tenant.ID, "alice")
	want := Principal{Peer: peer, TenantID: tenant.ID, AgentID: agent.ID, UserID: user.ID, Login: "alice", PasswordVersion: 1}
	if p != want {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	records := s.trail.take()
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	r := records[0]
	if r.Event != "session.created" || r.Reason != "" || r.Actor != peer.Certificate.ID || r.CertificateSerial != peer.Certificate.Serial ||
		r.CertificateThumbprint != peer.Certificate.Thumbprint || r.Peer != peer.Address || r.RequestID != peer.RequestID || r.Tenant != "acme" ||
		r.TenantID != tenant.ID || r.Login != "alice" || r.UserID != user.ID || r.Agent != "nas-1" || r.AgentID != agent.ID || r.SessionID != "" ||
		r.Detail["call"] != getCredentials {
		t.Errorf("audited %+v", r)
	}
}

// Whatever is refused has its own reason, is audited, and is not repeated in
// the answer. Unknown login and wrong password differ in the trail alone.
func TestPasswordLoginRefused(t *testing.T) {
	wrong := "wrong-wrong-wrong"
	var answers []string
	for name, c := range map[string]struct {
		login, password string
		prepare         func(*site)
		want            reason.Reason
		cause           string
		hashes          uint64
	}{
		"wrong password":           {"alice@acme", wrong, nil, reason.LoginRejected, "wrong password", 1},
		"unknown login":            {"nobody@acme", wrong, nil, reason.LoginRejected, "unknown login", 1},
		"other tenant":             {"bob@umbra", password, nil, reason.TenantMismatch, "login of tenant umbra", 0},
		"tenant that is not there": {"alice@nowhere", password, nil, reason.TenantMismatch, "login of tenant nowhere", 0},
		"other tenant's login":     {"bob@acme", password, nil, reason.LoginRejected, "unknown login", 1},
		"disabled":                 {"alice@acme", password, func(s *site) { s.user(func(u *storage.User) { u.Disabled = true }) }, reason.UserDisabled, "right password", 1},
		"disabled, wrong password": {"alice@acme", wrong, func(s *site) { s.user(func(u *storage.User) { u.Disabled = true }) }, reason.LoginRejected, "wrong password", 1},
	} {
		s := newSite(t)
		if c.prepare != nil {
			c.prepare(s)
		}
		before := s.pool.Stats().Done
		_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), createSession, basic(c.login, c.password))
		if !reason.Is(err, c.want) || strings.Contains(err.Error(), c.password) {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.pool.Stats().Done - before; n != c.hashes {
			t.Errorf("%s: %d hashes", name, n)
		}
		if c.want == reason.LoginRejected {
			answers = append(answers, err.Error())
		}
		records := s.trail.take()
		if len(records) != 1 || records[0].Event != "session.refused" || records[0].Reason != string(c.want) || records[0].Detail["cause"] != c.cause ||
			records[0].Login != strings.Split(c.login, "@")[0] || records[0].Detail["call"] != createSession {
			t.Errorf("%s: audited %+v", name, records)
		}
		if text := string(must(json.Marshal(records))); strings.Contains(text, c.password) {
			t.Errorf("%s: the password is in the trail", name)
		}
	}
	for _, answer := range answers {
		if answer != answers[0] {
			t.Errorf("a caller can tell %q from %q", answer, answers[0])
		}
	}
}

// The answer to an unknown login spends what a known one does.
func TestUnknownLoginCostsOneHash(t *testing.T) {
	s := newSite(t)
	stored := must(s.pool.Hash(t.Context(), secret.New(password)))
	h := must(parseHash(stored))
	if h.memory != s.pool.want.memory || h.passes != s.pool.want.passes || h.lanes != s.pool.want.lanes ||
		len(h.salt) != len(s.pool.want.salt) || len(h.hash) != len(s.pool.want.hash) {
		t.Errorf("the hash for unknown logins has other parameters than %s", stored)
	}
}

func TestMalformedLoginsCostNothing(t *testing.T) {
	s := newSite(t)
	before := s.pool.Stats().Done
	for _, login := range badLogins {
		_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), createSession, basic(login, password))
		if !reason.Is(err, reason.LoginMalformed) {
			t.Errorf("%.80q: %v", login, err)
		}
	}
	if s.pool.Stats().Done != before {
		t.Error("a password was hashed")
	}
	for _, r := range s.trail.take() {
		if r.Event != "session.refused" || r.Reason != "LOGIN_MALFORMED" || r.Login != "" {
			t.Errorf("audited %+v", r)
		}
	}
}

func TestWrongPasswordsAreDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		peer := s.agent("acme", "nas-1")
		for range 4 {
			if _, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", "wrong-wrong-wrong")); !reason.Is(err, reason.LoginRejected) {
				t.Fatal(err)
			}
		}
		s.trail.take()
		before := s.pool.Stats().Done
		for range 10 {
			_, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password))
			var e *reason.Error
			if !errors.As(err, &e) || e.Reason != reason.LoginDelayed || e.RetryAfter != time.Second {
				t.Fatalf("%v", err)
			}
		}
		if s.pool.Stats().Done != before {
			t.Error("a delayed login cost a hash")
		}
		if records := s.trail.take(); len(records) != 1 || records[0].Reason != "LOGIN_DELAYED" || records[0].Login != "alice" {
			t.Errorf("audited %+v", records)
		}
		// Another certificate is not delayed, nor is a token.
		session := s.session(s.agent("acme", "nas-1"))
		if session.Token.IsZero() {
			t.Error("no session")
		}
		pass(time.Second)
		if _, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password)); err != nil {
			t.Error(err)
		}
	})
}

func TestPoolFullIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pool *Passwords
		s := newSite(t, func(cfg *Config) {
			pool = cheap(t, PasswordsConfig{Permits: 1, Queue: 1})
			cfg.Passwords = pool
		})
		pool.permits <- struct{}{}
		pool.waiting = 1
		for _, login := range []string{"alice@acme", "nobody@acme"} {
			for range 5 {
				_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), createSession, basic(login, password))
				if !reason.Is(err, reason.LoginBusy) {
					t.Errorf("%s: %v", login, err)
				}
			}
		}
		if records := s.trail.take(); len(records) != 0 || len(s.throttle.peers) != 0 {
			t.Errorf("audited %+v", records)
		}
		pool.waiting = 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Authenticate(ctx, s.agent("acme", "nas-1"), createSession, basic("alice@acme", password)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Without the trail nothing is released, not even that a password is wrong.
func TestTrailFails(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	token := bearer(s.session(peer).Token)
	p, err := s.Authenticate(t.Context(), peer, getSession, token)
	if err != nil {
		t.Fatal(err)
	}
	known := reason.New(reason.AuditUnavailable, "the trail's own words")
	for _, fail := range []error{errDisk, known} {
		s.trail.setFail(fail)
		for name, act := range map[string]func() error{
			"right password": func() error {
				got, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), getCredentials, basic("alice@acme", password))
				if got != (Principal{}) {
					t.Error("a principal was released")
				}
				return err
			},
			"wrong password": func() error {
				_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), getCredentials, basic("alice@acme", "wrong-wrong-wrong"))
				return err
			},
			"wrong token": func() error {
				_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), getCredentials, token)
				return err
			},
			"new session": func() error {
				fresh := p
				fresh.SessionID, fresh.SessionExpires = "", time.Time{}
				session, err := s.CreateSession(t.Context(), fresh)
				if !session.Token.IsZero() {
					t.Error("a token was released")
				}
				return err
			},
			"end of session": func() error { return s.EndSession(t.Context(), p) },
		} {
			if err := act(); !reason.Is(err, reason.AuditUnavailable) || !errors.Is(err, fail) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// What needs no record goes on, and the session that was ended is.
	s.trail.setFail(nil)
	if _, err := s.Authenticate(t.Context(), peer, healthCheck, nil); err != nil {
		t.Error(err)
	}
	if err := s.Check(p); !reason.Is(err, reason.SessionEnded) {
		t.Error(err)
	}
}

// A guess counts and is recorded although the guesser hangs up.
func TestGuesserHangsUp(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	peer := s.agent("acme", "nas-1")
	if _, err := s.Authenticate(ctx, peer, getCredentials, basic("alice@acme", "wrong-wrong-wrong")); !reason.Is(err, reason.LoginRejected) {
		t.Error(err)
	}
	if records := s.trail.take(); len(records) != 1 || s.throttle.peers[peer.Certificate.Thumbprint] == nil {
		t.Errorf("audited %+v", records)
	}
	if _, err := s.Authenticate(ctx, peer, getCredentials, basic("alice@acme", password)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestStorageFails(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	session := s.session(peer)
	p, err := s.Authenticate(t.Context(), peer, getSession, bearer(session.Token))
	if err != nil {
		t.Fatal(err)
	}
	s.world.change(func() { s.world.fail = storage.ErrUnavailable })
	for _, login := range []string{"alice@acme", "nobody@acme"} {
		_, err := s.Authenticate(t.Context(), peer, createSession, basic(login, password))
		if !reason.Is(err, reason.StorageUnavailable) || !reason.Transient(err) {
			t.Errorf("%s: %v", login, err)
		}
	}
	if err := s.EndSession(t.Context(), p); !reason.Is(err, reason.StorageUnavailable) {
		t.Error(err)
	}
	// A token is good without storage.
	if _, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token)); err != nil {
		t.Error(err)
	}
	if err := errStorage(context.Canceled); !errors.Is(err, context.Canceled) || reason.Is(err, reason.StorageUnavailable) {
		t.Error(err)
	}
}

func TestBrokenStoredHash(t *testing.T) {
	s := newSite(t)
	s.user(func(u *storage.User) { u.PasswordHash = "broken" })
	_, err := s.Authenticate(t.Context(), s.agent("acme", "nas-1"), createSession, basic("alice@acme", password))
	if !reason.Is(err, reason.Internal) || !errors.Is(err, errStoredHash) {
		t.Error(err)
	}
}

// The directory and storage may differ for a moment.
func TestDirectoryAndStorageDiffer(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	s.cfg.Users = renamed{s.world}
	if _, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password)); !reason.Is(err, reason.LoginRejected) {
		t.Errorf("the row is another user's: %v", err)
	}
	// Disabled while the password was checked: the directory knows, the row
	// that was read does not.
	s.cfg.Users = s.world
	s.user(func(u *storage.User) { u.Disabled = true })
	s.cfg.Users = enabled{s.world}
	s.trail.take()
	if _, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password)); !reason.Is(err, reason.UserDisabled) {
		t.Error(err)
	}
	if records := s.trail.take(); len(records) != 1 || records[0].Reason != "USER_DISABLED" || records[0].Event != "session.refused" {
		t.Errorf("audited %+v", records)
	}
}

type renamed struct{ *world }

func (r renamed) GetUser(ctx context.Context, id string) (storage.User, error) {
	u, err := r.world.GetUser(ctx, id)
	u.Login = "carol"
	return u, err
}

type enabled struct{ *world }

func (e enabled) GetUser(ctx context.Context, id string) (storage.User, error) {
	u, err := e.world.GetUser(ctx, id)
	u.Disabled = false
	return u, err
}

func TestHashIsUpgraded(t *testing.T) {
	s := newSite(t)
	strong := must(NewPasswords(PasswordsConfig{Memory: 128, Passes: 1}))
	s.cfg.Passwords = strong
	peer := s.agent("acme", "nas-1")
	old, _ := find(s.world, s.world.users, func(u storage.User) bool { return u.Login == "alice" })
	login := func() {
		t.Helper()
		p, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password))
		if err != nil || s.Check(p) != nil {
			t.Fatalf("%v, %v", err, s.Check(p))
		}
	}
	s.world.change(func() { s.world.conflict = true })
	login() // somebody else was quicker
	s.world.change(func() { s.world.conflict = false })
	login()
	fresh, _ := find(s.world, s.world.users, func(u storage.User) bool { return u.Login == "alice" })
	if s.world.updated != 1 || strong.NeedsRehash(fresh.PasswordHash) || fresh.PasswordVersion != old.PasswordVersion || fresh.PasswordHash == old.PasswordHash {
		t.Errorf("%d updates, from %s to %s", s.world.updated, old.PasswordHash, fresh.PasswordHash)
	}
	login()
	if s.world.updated != 1 {
		t.Error("a strong hash was replaced")
	}
	// A wrong password upgrades nothing.
	s.cfg.Passwords = must(NewPasswords(PasswordsConfig{Memory: 256, Passes: 1}))
	if _, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", "wrong-wrong-wrong")); !reason.Is(err, reason.LoginRejected) || s.world.updated != 1 {
		t.Errorf("%d updates, %v", s.world.updated, err)
	}
}

func TestCreateSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		peer := s.agent("acme", "nas-1")
		s.trail.take()
		lives := map[time.Duration]bool{}
		for range 20 {
			session := s.session(peer)
			life := time.Until(session.Expires)
			if life > DefaultSessionLifetime || life < DefaultSessionLifetime*9/10-time.Second || session.Expires.Nanosecond() != 0 {
				t.Errorf("a session of %s", life)
			}
			lives[life] = true
			records := s.trail.take()
			if len(records) != 1 || records[0].Event != "session.created" || records[0].SessionID != session.ID || !records[0].Expires.Equal(session.Expires) {
				t.Errorf("audited %+v", records)
			}
			if text := string(must(json.Marshal(records))); strings.Contains(text, session.Token.Reveal()) {
				t.Error("the token is in the trail")
			}
			p, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token))
			if err != nil || p.SessionID != session.ID || !p.SessionExpires.Equal(session.Expires) || p.Login != "alice" || p.PasswordVersion != 1 {
				t.Errorf("%+v, %v", p, err)
			}
		}
		if len(lives) < 10 {
			t.Errorf("%d different lives of 20: agents will log in together", len(lives))
		}
		// Never beyond the certificate.
		pass(time.Until(peer.Certificate.NotAfter) - time.Hour)
		if session := s.session(peer); session.Expires.After(peer.Certificate.NotAfter) {
			t.Errorf("it ends %s, the certificate %s", session.Expires, peer.Certificate.NotAfter)
		}
		p, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password))
		if err != nil {
			t.Fatal(err)
		}
		p.Certificate.NotAfter = time.Now().Truncate(time.Second)
		if _, err := s.CreateSession(t.Context(), p); !reason.Is(err, reason.CertificateExpired) {
			t.Error(err)
		}
	})
}

func TestCreateSessionRefuses(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	p, err := s.Authenticate(t.Context(), peer, createSession, basic("alice@acme", password))
	if err != nil {
		t.Fatal(err)
	}
	s.trail.take()
	for name, c := range map[string]struct {
		change func(*Principal)
		want   reason.Reason
	}{
		"no user":     {func(p *Principal) { p.UserID = "" }, reason.LoginRequired},
		"by a token":  {func(p *Principal) { p.SessionID = "s" }, reason.LoginRequired},
		"by operator": {func(p *Principal) { p.Kind = Operator }, reason.LoginRequired},
	} {
		changed := p
		c.change(&changed)
		if session, err := s.CreateSession(t.Context(), changed); !reason.Is(err, c.want) || session.ID != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.user(func(u *storage.User) { u.Disabled = true })
	if _, err := s.CreateSession(t.Context(), p); !reason.Is(err, reason.UserDisabled) {
		t.Error(err)
	}
	if records := s.trail.take(); len(records) != 0 {
		t.Errorf("audited %+v", records)
	}
}

func TestEndSession(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	session, other := s.session(peer), s.session(peer)
	p, err := s.Authenticate(t.Context(), peer, deleteSession, bearer(session.Token))
	if err != nil {
		t.Fatal(err)
	}
	s.trail.take()
	before := s.world.synced
	if err := s.EndSession(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if s.world.synced != before+1 || !s.world.ended[session.ID].Expires.Equal(session.Expires) {
		t.Errorf("synced %d times, %+v", s.world.synced, s.world.ended)
	}
	if records := s.trail.take(); len(records) != 1 || records[0].Event != "session.ended" || records[0].SessionID != session.ID || records[0].Login != "alice" {
		t.Errorf("audited %+v", records)
	}
	if _, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(session.Token)); !reason.Is(err, reason.SessionEnded) {
		t.Error(err)
	}
	if _, err := s.Authenticate(t.Context(), peer, getCredentials, bearer(other.Token)); err != nil {
		t.Errorf("another session ended too: %v", err)
	}
	p.SessionID = ""
	if err := s.EndSession(t.Context(), p); !reason.Is(err, reason.LoginRequired) {
		t.Error(err)
	}
}

// What ended is recorded, even if the caller has gone or other parts cannot
// keep up.
func TestEndSessionIsRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		stuck bool
		want  reason.Reason
	}{"the caller has gone": {false, ""}, "storage hangs": {true, reason.StorageUnavailable}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				peer := s.agent("acme", "nas-1")
				p, err := s.Authenticate(t.Context(), peer, deleteSession, bearer(s.session(peer).Token))
				if err != nil {
					t.Fatal(err)
				}
				s.trail.take()
				s.world.stuck = c.stuck
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := s.EndSession(ctx, p); reason.Of(err) != c.want {
					t.Errorf("ended: %v", err)
				}
				if records := s.trail.take(); len(records) != 1 || records[0].Event != "session.ended" {
					t.Errorf("audited %+v", records)
				}
			})
		})
	}
}

// A token is good with its own certificate alone: not with another agent's,
// not with another tenant's, not with the same agent's next one.
func TestTokenWithAnotherCertificate(t *testing.T) {
	s := newSite(t)
	peer := s.agent("acme", "nas-1")
	token := bearer(s.session(peer).Token)
	for name, other := range map[string]Peer{"renewed": s.agent("acme", "nas-1"), "another tenant's": s.agent("umbra", "nas-1")} {
		s.trail.take()
		if _, err := s.Authenticate(t.Context(), other, getCredentials, token); !reason.Is(err, reason.TokenCertificateBind) {
			t.Errorf("%s: %v", name, err)
		}
		records := s.trail.take()
		if len(records) != 1 || records[0].Event != "session.refused" || records[0].Reason != "TOKEN_CERTIFICATE_MISMATCH" || records[0].SessionID == "" ||
			records[0].CertificateThumbprint != other.Certificate.Thumbprint {
			t.Errorf("%s: audited %+v", name, records)
		}
	}
	// The tenant was deleted and made again under its name: nothing old holds.
	tenant, _ := s.world.TenantByName("acme")
	remove(s, s.world.tenants, tenant.ID)
	s.addTenant("acme", "nas-1", "alice")
	if _, err := s.Authenticate(t.Context(), peer, getCredentials, token); !reason.Is(err, reason.TokenInvalid) {
		t.Error(err)
	}
}
