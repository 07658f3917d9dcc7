package admintest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/doctor"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/rotation"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
	"github.com/stokerd/stoker/server/internal/watch"
)

// TrustDomain is that of every certificate.
const TrustDomain = "backup.example"

// The operators, one a role. Stranger has a certificate and no role.
const (
	Admin    = "ann"
	Operator = "otto"
	Viewer   = "vera"
	Stranger = "sam"
)

// Options change what a broker is made of. The zero value is a whole one.
type Options struct {
	// Configure changes the configuration of the services before they are
	// made, to inject faults.
	Configure func(*adminapi.Config)
	// Share has the broker use another's storage, keys and authority: it is
	// that broker's replica.
	Share *Broker
	// Streams has the broker list two open streams, of agents acme/server-1
	// and borg/server-1.
	Streams bool
}

// Broker is a running set of services.
type Broker struct {
	// Address is where it listens, on loopback.
	Address   string
	Authority *pki.Authority
	Store     *sqlite.Store
	Directory *directory.Directory
	Trail     *audit.Trail
	Passwords *authn.Passwords

	tokens            *authn.Tokens
	auditKey, pageKey secret.String
	// serving starts the listener and gives what ends it; stop is that.
	serving func(t testing.TB) (stop func())
	stop    func()
}

// key draws 32 random bytes.
func key(t testing.TB) secret.String {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return secret.New(string(raw))
}

// Start runs a broker until the test ends.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	b := o.Share
	if b == nil {
		b = fresh(t, log)
	} else {
		shared := *b
		b = &shared
		b.Address = ""
	}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if b.Trail, err = audit.Open(ctx, b.Store, b.auditKey, audit.Options{Log: log}); err != nil {
		t.Fatal(err)
	}
	if b.Directory, err = directory.Open(ctx, b.Store, log); err != nil {
		t.Fatal(err)
	}
	followed := make(chan error, 1)
	go func() { followed <- b.Directory.Run(ctx) }()
	b.serving = func(t testing.TB) func() { return b.serve(t, o, log) }
	b.stop = b.serving(t)
	t.Cleanup(func() {
		b.stop()
		if err := b.Trail.Close(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-followed; err != nil {
			t.Error(err)
		}
	})
	return b
}

// Restart ends the services as a stopping broker does, and starts them again at
// the same address.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.stop()
	b.stop = b.serving(t)
}

func fresh(t testing.TB, log *slog.Logger) *Broker {
	b := &Broker{auditKey: key(t), pageKey: key(t)}
	var err error
	if b.Authority, err = pki.NewAuthority(TrustDomain, nil); err != nil {
		t.Fatal(err)
	}
	// As cheap as they may be: nobody guesses here.
	if b.Passwords, err = authn.NewPasswords(authn.PasswordsConfig{Memory: 64, Passes: 1}); err != nil {
		t.Fatal(err)
	}
	if b.Store, err = sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "stoker.db"), log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	sealer, err := pki.NewSealer(secret.New(base64.StdEncoding.EncodeToString([]byte(key(t).Reveal()))))
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := authn.OpenKeyring(context.Background(), authn.KeyringConfig{Keys: b.Store, Sealer: sealer, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if b.tokens, err = authn.NewTokens(TrustDomain, keyring); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve starts the listener and gives what ends it.
func (b *Broker) serve(t testing.TB, o Options, log *slog.Logger) (stop func()) {
	stopping := make(chan struct{})
	config := adminapi.Config{
		Store: b.Store, Directory: b.Directory, Trail: b.Trail, Verify: b.Trail.Verify, Passwords: b.Passwords,
		Authority: b.Authority, Streams: func() []adminapi.Stream { return nil }, PageKey: b.pageKey, Log: log,
		Events: watch.New(b.Store), Stopping: stopping, Status: b.status(o.Streams), Doctor: sampleDoctor{}, Rotator: sampleRotator{},
		Accounts: map[string]adminapi.AccountLimits{
			"main":  {MinLifetime: 15 * time.Minute, MaxLifetime: 12 * time.Hour},
			"short": {MinLifetime: 15 * time.Minute, MaxLifetime: 30 * time.Minute},
		},
	}
	if o.Streams {
		config.Streams = sampleStreams
	}
	if o.Configure != nil {
		o.Configure(&config)
	}
	if config.Revoker == nil {
		desk, err := revocation.New(revocation.Config{
			Directory: b.Directory, Store: b.Store, Trail: config.Trail, Log: log,
			Accounts: map[string]revocation.Account{"main": {MaxLifetime: 12 * time.Hour}, "short": {MaxLifetime: 30 * time.Minute}},
		})
		if err != nil {
			t.Fatal(err)
		}
		config.Revoker = desk
	}
	who, err := authn.New(authn.Config{
		TrustDomain: TrustDomain, Directory: b.Directory, Users: b.Store, Sessions: b.Store, Trail: b.Trail,
		Passwords: b.Passwords, Tokens: b.tokens,
		Operators: map[string]authn.Role{Admin: authn.RoleAdmin, Operator: authn.RoleOperator, Viewer: authn.RoleViewer},
		Log:       log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if config.Recheck == nil {
		config.Recheck = who.Check
	}
	api, err := adminapi.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if b.Address == "" {
		b.Address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", b.Address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(b.serverTLS(t))), grpc.UnaryInterceptor(b.admit(who)), grpc.StreamInterceptor(b.admitStream(who)))
	api.Register(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	b.Address = listener.Addr().String()
	return func() {
		close(stopping)
		// Calls that last end by themselves now, if their callers read.
		limit := time.AfterFunc(10*time.Second, server.Stop)
		defer limit.Stop()
		server.GracefulStop()
		// A server that was stopped before it came to serve says so.
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}
}

func (b *Broker) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(b.Authority.Certificate())
	return roots
}

func (b *Broker) serverTLS(t testing.TB) *tls.Config {
	cert, err := pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return b.Authority.SignServer(key, nil, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: b.roots(),
	}
}

// admit does what the broker's interceptors do: request id, authentication,
// errors. admitStream does it for streams.
func (b *Broker) admit(who *authn.Authenticator) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := identify(ctx, who, info.FullMethod)
		var answer any
		if err == nil {
			answer, err = next(ctx, request)
		}
		return answer, apierr.Error(ctx, err)
	}
}

func (b *Broker) admitStream(who *authn.Authenticator) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := identify(stream.Context(), who, info.FullMethod)
		if err == nil {
			err = next(service, &middleware.WrappedServerStream{ServerStream: stream, WrappedContext: ctx})
		}
		return apierr.Error(ctx, err)
	}
}

// identify gives a call its request id and its principal.
func identify(ctx context.Context, who *authn.Authenticator, method string) (context.Context, error) {
	ctx = apierr.WithRequestID(ctx, "request-"+rand.Text())
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, reason.New(reason.CertificateRequired, "the connection has no peer")
	}
	state := from.AuthInfo.(credentials.TLSInfo).State
	caller, err := authn.Identify(TrustDomain, state.VerifiedChains[0][0])
	if err != nil {
		return ctx, err
	}
	caller.Address = from.Addr.String()
	principal, err := who.Authenticate(ctx, caller, method, metadata.ValueFromIncomingContext(ctx, "authorization"))
	return authn.WithPrincipal(ctx, principal), err
}

// certify gives an operator a certificate.
func (b *Broker) certify(t testing.TB, operator string) tls.Certificate {
	t.Helper()
	pair, err := pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return b.Authority.SignOperator(key, operator, time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Files writes the authority's certificate and an operator's certificate with
// its key, and gives their paths.
func (b *Broker) Files(t testing.TB, operator string) (ca, cert, key string) {
	t.Helper()
	pair, dir := b.certify(t, operator), t.TempDir()
	keyPEM, err := pki.EncodeKey(pair.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", b.Authority.CertificatePEM()), write(operator+".pem", pki.EncodeCertificates(pair.Leaf)),
		write(operator+".key", []byte(keyPEM.Reveal()))
}

// Dial connects as an operator until the test ends.
func (b *Broker) Dial(t testing.TB, operator string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(b.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{b.certify(t, operator)}, RootCAs: b.roots(),
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// Records gives the whole audit trail.
func (b *Broker) Records(t testing.TB) []storage.AuditRecord {
	t.Helper()
	records, err := b.Store.ListAudit(context.Background(), storage.AuditFilter{}, nil, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// Issued records that a credential was issued to agent acme/server-1 under its
// grant photos, as a broker would that issues any.
func (b *Broker) Issued(t testing.TB, credentialID, accessKeyID, sessionName string) {
	t.Helper()
	_, err := b.Trail.Append(context.Background(), storage.AuditRecord{
		Event: storage.EventCredentialIssued, Actor: "spiffe://" + TrustDomain + "/tenant/acme/agent/server-1",
		TenantID: "acme-id", Tenant: "acme", Login: "nightly", Agent: "server-1", Grant: "photos", Account: "main",
		CredentialID: credentialID, AccessKeyID: accessKeyID, SessionName: sessionName, Expires: time.Now().Add(time.Hour),
	}, audit.NoFence)
	if err != nil {
		t.Fatal(err)
	}
}

// status is that of a broker in trouble, if it has streams, and else of one
// with nothing to do.
func (b *Broker) status(streams bool) func(context.Context) (adminapi.Status, error) {
	started := time.Now().Add(-50 * time.Hour)
	quiet := adminapi.Status{
		Version: "test", Started: started, Writer: b.Trail.Writer(), Accounts: map[string]adminapi.Account{"main": {Method: "assume_role", Region: "eu-central-1"}},
		Leases:       lease.Stats{Accounts: []lease.AccountStats{{Name: "main", Rate: 100, Limit: 100}}},
		Brokers:      []watch.Broker{{Writer: b.Trail.Writer(), Started: started, Last: time.Now()}},
		Certificates: []pki.Status{{Name: "server certificate", Expires: time.Now().Add(100 * time.Hour)}},
	}
	trouble := quiet
	trouble.Problem = "storage: the disk is full"
	trouble.Leases = lease.Stats{Leases: 3, Dry: 1, HasCredential: true, Emptiest: -time.Minute, Accounts: []lease.AccountStats{{Name: "main", Rate: 12.5, Limit: 100, Due: 2, Lag: time.Minute, Down: true}}}
	trouble.Supplies = []lease.Status{{
		Holder: lease.Holder{Tenant: "acme", Agent: "server-1", Login: "nightly"}, Grant: "photos", Subscriptions: 1, Entitled: true,
		Problem: reason.STSUnavailable, RetryAt: time.Now().Add(time.Minute),
	}}
	return func(context.Context) (adminapi.Status, error) {
		if streams {
			return trouble, nil
		}
		return quiet, nil
	}
}

// sampleDoctor finds one thing of each kind, and that a grant named "open" is.
type sampleDoctor struct{}

func (sampleDoctor) Examine(context.Context) ([]doctor.Finding, error) {
	return []doctor.Finding{
		{Severity: doctor.OK, Subject: "storage", Message: "works"},
		{Severity: doctor.Note, Subject: "account main", Message: "calls STS as somebody"},
		{Severity: doctor.Warning, Subject: "bucket backups", Message: "evil\x1b[2Jpolicy"},
	}, nil
}

func (sampleDoctor) Try(_ context.Context, _ storage.AuditRecord, t storage.Tenant, g storage.Grant) ([]doctor.Finding, error) {
	if g.Name == "open" {
		return []doctor.Finding{{Severity: doctor.Fatal, Subject: "grant " + t.Name + "/" + g.Name, Message: "its credential lists the whole bucket"}}, nil
	}
	return []doctor.Finding{{Severity: doctor.OK, Subject: "grant " + t.Name + "/" + g.Name, Message: "its credential lists nothing else"}}, nil
}

// sampleRotator makes the steps of a rotation of the account main, and finds
// another's user to have two keys.
type sampleRotator struct{}

func (sampleRotator) Rotate(_ context.Context, r rotation.Request, tell func(rotation.Progress) error) error {
	switch {
	case r.Account == "short":
		return reason.New(reason.KeyRotationBlocked, "the user has two access keys, and IAM allows no third: delete the other one, AKIAOTHER")
	case r.Account != "main":
		return reason.New(reason.NotFound, "there is no account %q; the broker has main, short", r.Account).With("field", "account")
	case r.DryRun:
		return tell(rotation.Progress{Step: rotation.Planned, AccessKeyID: "AKIAOLD", Message: "a new key would be created"})
	case r.Abort:
		return tell(rotation.Progress{Step: rotation.Reverted, AccessKeyID: "AKIANEW", Message: "the rotation was undone"})
	}
	for _, p := range []rotation.Progress{
		{Step: rotation.Created, AccessKeyID: "AKIANEW", Message: "the new key was created"},
		{Step: rotation.Switched, AccessKeyID: "AKIANEW", Message: "the new key is in use"},
		{Step: rotation.Deleted, AccessKeyID: "AKIAOLD", Message: "the old key was deleted"},
	} {
		if err := tell(p); err != nil {
			return err
		}
	}
	return nil
}

// sampleStreams are two streams. One's agent sends a terminal's control
// characters for its name, as any agent can.
func sampleStreams() []adminapi.Stream {
	opened := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []adminapi.Stream{
		{
			ID: "0198c0de-0000-7000-8000-000000000001", TenantID: "acme-id", Tenant: "acme", Agent: "server-1", Login: "nightly",
			Peer: "192.0.2.1:4711", Client: "stoker-agent/1.0 linux", CertificateSerial: "ab12", Opened: opened, Pending: 1,
			Grants: []adminapi.StreamGrant{
				{Grant: "photos", CredentialID: "0198c0de-0000-7000-8000-00000000000c", Expires: opened.Add(time.Hour), Acknowledged: opened.Add(time.Second)},
				{Grant: "music"},
			},
		},
		{
			ID: "0198c0de-0000-7000-8000-000000000002", TenantID: "borg-id", Tenant: "borg", Agent: "server-1", Login: "nightly",
			Peer: "192.0.2.2:4711", Client: "evil\x1b[2Jclient", CertificateSerial: "cd34", Opened: opened.Add(time.Minute),
		},
	}
}
