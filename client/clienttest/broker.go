package clienttest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/stokerd/stoker/client"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// Whom the broker knows.
const (
	// Login is the user that Config logs in as. AddUser adds others.
	Login = "nightly@acme"
	// AgentID is the identity in the certificate that Config uses.
	AgentID = "spiffe://stoker.test/tenant/acme/agent/nas-1"
	// Host is the name in the broker's certificate, besides localhost and the
	// loopback addresses.
	Host = "broker.stoker.test"
)

type settings struct {
	inMemory  bool
	grants    []string
	lifetime  time.Duration
	heartbeat time.Duration
	session   time.Duration
	enroll    bool
	twin      *Broker
}

// Option changes how a broker is made.
type Option func(*settings)

// InMemory makes a broker without a socket. It is reached through Config's Dial
// alone, and works inside testing/synctest.
func InMemory() Option { return func(s *settings) { s.inMemory = true } }

// WithGrants names the user's grants; without it there is one, "photos".
func WithGrants(names ...string) Option { return func(s *settings) { s.grants = names } }

// WithLifetime sets how long credentials live that nobody pushed; without it, an
// hour.
func WithLifetime(d time.Duration) Option { return func(s *settings) { s.lifetime = d } }

// WithHeartbeat sets the heartbeat interval; without it, 30 seconds.
func WithHeartbeat(d time.Duration) Option { return func(s *settings) { s.heartbeat = d } }

// WithSession sets how long an access token is good; without it, 12 hours.
func WithSession(d time.Duration) Option { return func(s *settings) { s.session = d } }

// WithEnrollment opens an enrollment listener too; see Broker.Enrollment.
func WithEnrollment() Option { return func(s *settings) { s.enroll = true } }

// AsReplicaOf gives a broker the authority, the agent and the password of
// another, as the replicas of one service have. Access tokens and credentials are
// not shared.
func AsReplicaOf(other *Broker) Option { return func(s *settings) { s.twin = other } }

// Broker is a small working broker. Its methods are safe for concurrent use.
type Broker struct {
	tb        testing.TB
	settings  settings
	authority *authority
	identity  tls.Certificate // the broker's own
	agent     tls.Certificate
	gate      *gate

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	password string
	others   map[string]string // the other users' passwords by login
	address  string
	server   *grpc.Server
	listener *listener
	memory   *bufconn.Listener
	desk     desk
	serving  sync.WaitGroup
	clock    time.Duration // how far the broker's clock is ahead
	muted    bool

	grants        map[string]*client.Credential
	issued        map[string]time.Time // when the last one was, by grant
	withdrawn     map[string]client.Reason
	sessions      map[string]*session
	streams       map[*stream]struct{}
	refuseLogin   *client.Error
	refuseStreams *client.Error
	record        record
}

// New starts a broker, which ends with the test. It answers credentials that
// live for an hour, and pushes a new one when Push is called and not before.
func New(tb testing.TB, options ...Option) *Broker {
	tb.Helper()
	s := settings{grants: []string{"photos"}, lifetime: time.Hour, heartbeat: 30 * time.Second, session: 12 * time.Hour}
	for _, o := range options {
		o(&s)
	}
	b := &Broker{
		tb: tb, settings: s, authority: newAuthority(tb), gate: newGate(),
		changed:   make(chan struct{}),
		password:  rand.Text(),
		others:    make(map[string]string),
		grants:    make(map[string]*client.Credential),
		issued:    make(map[string]time.Time),
		withdrawn: make(map[string]client.Reason),
		sessions:  make(map[string]*session),
		streams:   make(map[*stream]struct{}),
		desk:      desk{life: certificateLife, address: "127.0.0.1:0"},
	}
	if s.twin != nil {
		b.authority, b.agent, b.password = s.twin.authority, s.twin.agent, s.twin.Password()
	} else {
		b.agent = b.authority.agent(tb, AgentID, life)
	}
	b.identity = b.authority.server(tb, Host)
	for _, name := range s.grants {
		b.grants[name] = nil
	}
	b.address = "127.0.0.1:0"
	if s.inMemory {
		b.address = Host + ":7443"
	}
	b.Start()
	tb.Cleanup(b.Stop)
	return b
}

// Start makes a stopped broker reachable again, at the same address.
func (b *Broker) Start() {
	b.tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return
	}
	var inner net.Listener
	if b.settings.inMemory {
		b.memory = bufconn.Listen(1 << 20)
		inner = b.memory
	} else {
		l, err := net.Listen("tcp", b.address)
		if err != nil {
			b.tb.Fatalf("clienttest: %v", err)
		}
		b.address, inner = l.Addr().String(), l
	}
	b.listener = newListener(inner, b.gate)
	b.server = grpc.NewServer(
		grpc.Creds(grpccredentials.NewTLS(&tls.Config{
			Certificates:           []tls.Certificate{b.identity},
			ClientCAs:              b.authority.pool(),
			ClientAuth:             tls.RequireAndVerifyClientCert,
			MinVersion:             tls.VersionTLS13,
			SessionTicketsDisabled: true,
		})),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
	)
	stokerv1.RegisterSessionServiceServer(b.server, sessionService{broker: b})
	stokerv1.RegisterCredentialServiceServer(b.server, credentialService{broker: b})
	stokerv1.RegisterEnrollmentServiceServer(b.server, enrollmentService{broker: b})
	if b.settings.enroll {
		b.openDesk()
	}
	server, l := b.server, b.listener
	b.serving.Go(func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			b.tb.Errorf("clienttest: serve: %v", err)
		}
	})
}

// Stop takes the broker away: connections end, new ones are refused. What it
// knows, it keeps.
func (b *Broker) Stop() {
	b.mu.Lock()
	server, desk := b.server, b.desk.server
	b.server = nil
	b.mu.Unlock()
	if server == nil {
		return
	}
	b.gate.lift()
	server.Stop()
	if desk != nil {
		desk.Stop()
	}
	b.serving.Wait()
}

// Drop cuts all connections. New ones are welcome.
func (b *Broker) Drop() {
	b.mu.Lock()
	l := b.listener
	b.mu.Unlock()
	l.drop()
}

// Hang makes the broker silent: connections stay open, and nothing is read or
// written on them nor on new ones, until Resume.
func (b *Broker) Hang() { b.gate.shut() }

// Resume ends Hang.
func (b *Broker) Resume() { b.gate.lift() }

// Mute makes the broker send no more heartbeats, or send them again. The
// connection itself stays alive.
func (b *Broker) Mute(mute bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.muted = mute
}

// Address gives the broker's "host:port".
func (b *Broker) Address() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.address
}

// Password gives the user's password, which each broker makes up anew.
func (b *Broker) Password() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.password
}

// SetPassword changes the user's password. It ends no session by itself: see
// EndSessions.
func (b *Broker) SetPassword(password string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.password = password
}

// AddUser adds another user, "login@tenant", of the agent's tenant. The grants are
// every user's.
func (b *Broker) AddUser(login, password string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.others[login] = password
}

// SetClock makes the broker's clock differ from this machine's.
func (b *Broker) SetClock(ahead time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock = ahead
}

// Config gives a configuration with which the broker works, for all grants. Its
// password is the one of the moment when it is asked for.
func (b *Broker) Config() client.Config {
	config := client.Config{
		Brokers:  []string{b.Address()},
		TLS:      &tls.Config{RootCAs: b.authority.pool(), Certificates: []tls.Certificate{b.agent}},
		Login:    Login,
		Password: func(context.Context) (string, error) { return b.Password(), nil },
		Client:   "clienttest",
	}
	if b.settings.inMemory {
		config.Dial = b.Dial
	}
	return config
}

// Dial connects to the broker, whatever the address, in memory if it is InMemory.
func (b *Broker) Dial(ctx context.Context, _ string) (net.Conn, error) {
	b.mu.Lock()
	running, memory, address := b.server != nil, b.memory, b.address
	b.mu.Unlock()
	if memory == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	if !running {
		return nil, errors.New("connection refused")
	}
	return memory.DialContext(ctx)
}

// Certificate gives the certificate of the agent that Config uses.
func (b *Broker) Certificate() tls.Certificate { return b.agent }

// ServerCertificate gives the broker's own, for a test that puts something else in
// its place.
func (b *Broker) ServerCertificate() tls.Certificate { return b.identity }

// NewCertificate makes another certificate for the same agent, as a renewal
// does.
func (b *Broker) NewCertificate() tls.Certificate {
	b.tb.Helper()
	return b.authority.agent(b.tb, AgentID, life)
}

// Files are what a program needs that takes its configuration from files.
type Files struct {
	CA, Cert, Key, Password string
}

// Files writes the authority, the agent's certificate and key, and the password
// to a directory. The key and the password are readable by their owner alone.
func (b *Broker) Files(dir string) Files {
	b.tb.Helper()
	f := Files{
		CA:       filepath.Join(dir, "ca.pem"),
		Cert:     filepath.Join(dir, "agent.pem"),
		Key:      filepath.Join(dir, "agent.key"),
		Password: filepath.Join(dir, "password"),
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.authority.certificate.Raw})
	certificate, key := encode(b.tb, b.agent)
	for _, file := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{f.CA, ca, 0o644}, {f.Cert, certificate, 0o644}, {f.Key, key, 0o600},
		{f.Password, []byte(b.Password() + "\n"), 0o600},
	} {
		if err := os.WriteFile(file.name, file.data, file.mode); err != nil {
			b.tb.Fatalf("clienttest: %v", err)
		}
	}
	return f
}

// WriteCertificate replaces the certificate and the key in the files, as a
// renewal does.
func (f Files) WriteCertificate(tb testing.TB, pair tls.Certificate) {
	tb.Helper()
	certificate, key := encode(tb, pair)
	for name, data := range map[string][]byte{f.Cert: certificate, f.Key: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			tb.Fatalf("clienttest: %v", err)
		}
	}
}

// Await blocks until done, which is asked again whenever the broker has heard or
// done something, gives true, or ctx ends.
func (b *Broker) Await(ctx context.Context, done func(*Broker) bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if done(b) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("clienttest: the broker waited in vain: %w", context.Cause(ctx))
		}
	}
}

// note wakes Await. It needs mu.
func (b *Broker) note() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// now is the broker's clock. It needs mu.
func (b *Broker) now() time.Time { return time.Now().Add(b.clock) }
