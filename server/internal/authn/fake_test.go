package authn

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/x509"

	"go.uber.org/goleak"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time pass in a test's bubble (testing/synctest).
func pass(d time.Duration) { <-time.After(d) }

// world is a directory and the storage behind it, in one picture.
type world struct {
	mu       sync.Mutex
	tenants  map[string]storage.Tenant
	agents   map[string]storage.Agent
	users    map[string]storage.User
	revoked  map[string]string
	ended    map[string]storage.EndedSession
	fail     error // what every storage call answers
	updated  int
	conflict bool
	synced   int
	// late happened on another replica, and shows from the next Sync on.
	late  []func()
	stuck bool // Sync does not return while its context lasts
	swept []time.Time
}

func newWorld() *world {
	return &world{
		tenants: map[string]storage.Tenant{}, agents: map[string]storage.Agent{}, users: map[string]storage.User{},
		revoked: map[string]string{}, ended: map[string]storage.EndedSession{},
	}
}

// change runs f under the lock.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func find[T any](w *world, all map[string]T, match func(T) bool) (T, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range all {
		if match(v) {
			return v, true
		}
	}
	var zero T
	return zero, false
}

func (w *world) Tenant(id string) (storage.Tenant, bool) {
	return find(w, w.tenants, func(t storage.Tenant) bool { return t.ID == id })
}

func (w *world) TenantByName(name string) (storage.Tenant, bool) {
	return find(w, w.tenants, func(t storage.Tenant) bool { return t.Name == name })
}

func (w *world) Agent(id string) (storage.Agent, bool) {
	return find(w, w.agents, func(a storage.Agent) bool { return a.ID == id })
}

func (w *world) AgentByName(tenantID, name string) (storage.Agent, bool) {
	return find(w, w.agents, func(a storage.Agent) bool { return a.TenantID == tenantID && a.Name == name })
}

func (w *world) User(id string) (storage.User, bool) {
	u, ok := find(w, w.users, func(u storage.User) bool { return u.ID == id })
	u.PasswordHash = ""
	return u, ok
}

func (w *world) UserByLogin(tenantID, login string) (storage.User, bool) {
	u, ok := find(w, w.users, func(u storage.User) bool { return u.TenantID == tenantID && u.Login == login })
	u.PasswordHash = ""
	return u, ok
}

func (w *world) CertificateRevoked(serial string) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	why, ok := w.revoked[serial]
	return why, ok
}

func (w *world) SessionEnded(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.ended[id]
	return ok
}

func (w *world) Sync(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck {
		<-ctx.Done()
		return reason.New(reason.StorageUnavailable, "stuck").Because(ctx.Err())
	}
	w.synced++
	for _, f := range w.late {
		f()
	}
	w.late = nil
	return w.fail
}

func (w *world) GetUser(_ context.Context, id string) (storage.User, error) {
	if w.failure() != nil {
		return storage.User{}, w.failure()
	}
	u, ok := find(w, w.users, func(u storage.User) bool { return u.ID == id })
	if !ok {
		return storage.User{}, storage.ErrNotFound
	}
	return u, nil
}

func (w *world) UpdateUser(_ context.Context, u storage.User) (storage.User, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conflict || w.users[u.ID].Revision != u.Revision {
		return storage.User{}, storage.ErrConflict
	}
	u.Revision++
	w.users[u.ID] = u
	w.updated++
	return u, nil
}

func (w *world) EndSession(_ context.Context, s storage.EndedSession) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == nil {
		w.ended[s.ID] = s
	}
	return w.fail
}

func (w *world) SweepSessions(_ context.Context, before time.Time) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swept = append(w.swept, before)
	return 0, w.fail
}

func (w *world) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

// recorder is an audit trail in memory.
type recorder struct {
	mu      sync.Mutex
	records []storage.AuditRecord
	fail    error
}

func (r *recorder) Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return storage.AuditRecord{}, err
	}
	if fence != -1 {
		return storage.AuditRecord{}, errors.New("a login has no fence")
	}
	if r.fail != nil {
		return storage.AuditRecord{}, r.fail
	}
	r.records = append(r.records, rec)
	return rec, nil
}

func (r *recorder) setFail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// take gives the records since the last take.
func (r *recorder) take() []storage.AuditRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.records
	r.records = nil
	return taken
}

// keyStore keeps sealed keys, with storage's rule about who may replace which.
type keyStore struct {
	mu    sync.Mutex
	keys  []storage.SealedKey // newest first
	fail  error
	lists int
}

func (s *keyStore) AddKey(_ context.Context, k storage.SealedKey, replaces string) (storage.SealedKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return storage.SealedKey{}, s.fail
	}
	current := ""
	for _, key := range s.keys {
		if key.RetiredAt.IsZero() {
			current = key.ID
		}
	}
	if current != replaces {
		return storage.SealedKey{}, storage.ErrConflict
	}
	for i := range s.keys {
		if s.keys[i].RetiredAt.IsZero() {
			s.keys[i].RetiredAt = time.Now()
		}
	}
	k.CreatedAt = time.Now()
	s.keys = slices.Insert(s.keys, 0, k)
	return k, nil
}

func (s *keyStore) ListKeys(ctx context.Context, purpose string) ([]storage.SealedKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	if s.fail != nil || ctx.Err() != nil {
		return nil, errors.Join(s.fail, ctx.Err())
	}
	var found []storage.SealedKey
	for _, key := range s.keys {
		if key.Purpose == purpose {
			found = append(found, key)
		}
	}
	return found, nil
}

func (s *keyStore) DeleteKey(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	before := len(s.keys)
	s.keys = slices.DeleteFunc(s.keys, func(k storage.SealedKey) bool { return k.ID == id })
	if len(s.keys) == before {
		return storage.ErrNotFound
	}
	return nil
}

func (s *keyStore) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *keyStore) count() (keys, lists int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys), s.lists
}

// site is a broker's authentication with everything that it leans on.
type site struct {
	*Authenticator
	t         testing.TB
	world     *world
	trail     *recorder
	keys      *keyStore
	keyring   *Keyring
	pool      *Passwords
	authority *pki.Authority
}

const (
	domain   = "backup.example"
	password = "blotting-9-paper" // alice's
)

func testSealer(t testing.TB, fill string) *pki.Sealer {
	t.Helper()
	sealer, err := pki.NewSealer(secret.New(base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, 32)))))
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// cheap is a pool whose hashes take microseconds.
func cheap(t testing.TB, cfg PasswordsConfig) *Passwords {
	t.Helper()
	cfg.Memory, cfg.Passes = 64, 1
	pool, err := NewPasswords(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// newSite has the tenants acme and umbra, each with an agent nas-1 and a user
// (alice and bob), a service, and an operator of each role.
func newSite(t testing.TB, adjust ...func(*Config)) *site {
	t.Helper()
	s := &site{t: t, world: newWorld(), trail: &recorder{}, keys: &keyStore{}, pool: cheap(t, PasswordsConfig{})}
	var err error
	if s.authority, err = pki.NewAuthority(domain, nil); err != nil {
		t.Fatal(err)
	}
	s.keyring, err = OpenKeyring(t.Context(), KeyringConfig{Keys: s.keys, Sealer: testSealer(t, "k"), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := NewTokens(domain, s.keyring)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		TrustDomain: domain, Directory: s.world, Users: s.world, Sessions: s.world, Tokens: tokens,
		Passwords: s.pool, Trail: s.trail, Log: testLog(t),
		Operators: map[string]Role{"vera": RoleViewer, "otto": RoleOperator, "ada": RoleAdmin},
		Services:  map[string]ServiceRule{"restore": {Tenants: []string{"acme"}, Access: []string{"restore"}}},
	}
	for _, f := range adjust {
		f(&cfg)
	}
	if s.Authenticator, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	s.addTenant("acme", "nas-1", "alice")
	s.addTenant("umbra", "nas-1", "bob")
	return s
}

func (s *site) addTenant(name, agent, login string) {
	hash, err := s.pool.Hash(s.t.Context(), secret.New(password))
	if err != nil {
		s.t.Fatal(err)
	}
	s.world.change(func() {
		tenantID := newID()
		s.world.tenants[tenantID] = storage.Tenant{Meta: storage.Meta{ID: tenantID, Revision: 1}, Name: name}
		agentID := newID()
		s.world.agents[agentID] = storage.Agent{Meta: storage.Meta{ID: agentID, Revision: 1}, TenantID: tenantID, Name: agent}
		userID := newID()
		s.world.users[userID] = storage.User{
			Meta: storage.Meta{ID: userID, Revision: 1}, TenantID: tenantID, Login: login, PasswordHash: hash, PasswordVersion: 1,
		}
	})
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// user changes alice.
func (s *site) user(f func(*storage.User)) {
	s.world.change(func() {
		for id, u := range s.world.users {
			if u.Login == "alice" {
				f(&u)
				u.Revision++
				s.world.users[id] = u
			}
		}
	})
}

// changeAgent changes an agent.
func (s *site) changeAgent(id string, f func(*storage.Agent)) {
	s.world.change(func() {
		a := s.world.agents[id]
		f(&a)
		s.world.agents[id] = a
	})
}

// agent gives a peer with a new certificate of an agent.
func (s *site) agent(tenant, agent string) Peer {
	s.t.Helper()
	return s.peer(func(a *pki.Authority, key any) (*x509.Certificate, error) {
		return a.SignAgent(key, tenant, agent, 24*time.Hour)
	})
}

func (s *site) service(name string) Peer {
	s.t.Helper()
	return s.peer(func(a *pki.Authority, key any) (*x509.Certificate, error) { return a.SignService(key, name, time.Hour) })
}

func (s *site) operator(name string) Peer {
	s.t.Helper()
	return s.peer(func(a *pki.Authority, key any) (*x509.Certificate, error) {
		return a.SignOperator(key, name, time.Hour)
	})
}

func (s *site) peer(sign func(a *pki.Authority, key any) (*x509.Certificate, error)) Peer {
	s.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := sign(s.authority, key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	peer, err := Identify(domain, cert)
	if err != nil {
		s.t.Fatal(err)
	}
	peer.Address, peer.RequestID = "192.0.2.7:4711", "request-1"
	return peer
}

func basic(login, password string) []string {
	return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+password))}
}

func bearer(token secret.String) []string { return []string{"Bearer " + token.Reveal()} }

// The calls that the tests make most.
const (
	getCredentials = "/stoker.v1.CredentialService/GetCredentials"
	createSession  = "/stoker.v1.SessionService/CreateSession"
	getSession     = "/stoker.v1.SessionService/GetSession"
	deleteSession  = "/stoker.v1.SessionService/DeleteSession"
	healthCheck    = "/grpc.health.v1.Health/Check"
)

// session logs alice in from a peer.
func (s *site) session(peer Peer) Session {
	s.t.Helper()
	p, err := s.Authenticate(s.t.Context(), peer, createSession, basic("alice@acme", password))
	if err != nil {
		s.t.Fatal(err)
	}
	session, err := s.CreateSession(s.t.Context(), p)
	if err != nil {
		s.t.Fatal(err)
	}
	return session
}
