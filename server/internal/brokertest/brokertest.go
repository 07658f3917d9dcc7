// Package brokertest runs a whole broker inside a test: the real server with
// real TLS, its own certificate authority, SQLite in the test's directory, and
// a local STS unless the test names another.
//
// It owns the fixture only; what is tested stays in the tests. Everything ends
// with the test, and a broker that does not stop cleanly fails it.
package brokertest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
)

// TrustDomain is the broker's.
const TrustDomain = "test.example"

// Operator is an operator with the role admin, whose certificate Broker.Admin
// uses.
const Operator = "root"

// Options changes what Start starts.
type Options struct {
	// Configure changes the configuration before the start.
	Configure func(*server.Config)
	// STS changes the local STS before its start.
	STS func(*devsts.Config)
	// Log replaces the test's own log.
	Log *slog.Logger
	// PKI are the authorities of a provider with a PKI of its own, all trusted
	// for clients. The first signs what the fixture needs. Empty: the broker
	// has the built-in authority.
	PKI []*pki.Authority
}

// Broker is a running broker.
type Broker struct {
	// Addr is where it listens.
	Addr string
	// Config is what it runs with; Restart uses it again.
	Config server.Config
	// STS is the local STS behind the account "main".
	STS *devsts.Server
	// Admin is a connection of the operator.
	Admin *grpc.ClientConn
	// Server is the broker itself; Restart replaces it.
	Server *server.Server
	// Roots has the authority of the broker's certificate, AuthorityPEM is it.
	Roots        *x509.CertPool
	AuthorityPEM []byte

	t     testing.TB
	log   *slog.Logger
	dir   string
	own   *pki.Authority // the first of Options.PKI
	admin tls.Certificate
	stop  func()
}

// Start starts a broker with the account "main" and no tenants.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	dir := t.TempDir()
	user := devsts.NewUser("stoker")
	stsConfig := devsts.Config{Users: []devsts.User{user}, MinLifetime: time.Second}
	if o.STS != nil {
		o.STS(&stsConfig)
	}
	sts, err := devsts.Start(stsConfig)
	check(t, err)
	t.Cleanup(func() { _ = sts.Close() })
	key := filepath.Join(dir, "encryption.key")
	check(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(random(t, 32))), 0o600))
	b := &Broker{
		t: t, STS: sts, log: o.Log, dir: dir, Roots: x509.NewCertPool(),
		Config: server.Config{
			EncryptionKeyFile: key,
			TrustDomain:       TrustDomain, Listen: "127.0.0.1:0", Names: []string{"127.0.0.1", "localhost"},
			Storage: server.StorageConfig{SQLite: filepath.Join(dir, "stoker.db")},
			Accounts: map[string]server.AccountConfig{"main": {
				Method: "federation_token", Region: "us-east-1", Endpoint: sts.URL(), Keys: aws.CredentialsProvider(user),
				MinLifetime: time.Second, MaxLifetime: 12 * time.Hour, Rate: 1000,
			}},
			Operators:  map[string]string{Operator: "admin"},
			Operations: "off", Drain: 2 * time.Second,
		},
	}
	if b.log == nil {
		b.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if len(o.PKI) > 0 {
		b.provide(o.PKI)
	}
	if o.Configure != nil {
		o.Configure(&b.Config)
	}
	b.admin = b.issue("operator", Operator)
	b.run()
	t.Cleanup(func() { b.Stop() })
	b.Admin = b.Dial(b.admin)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(t testing.TB, n int) []byte {
	t.Helper()
	raw := make([]byte, n)
	_, err := rand.Read(raw)
	check(t, err)
	return raw
}

// issue makes a certificate offline, and learns the authority.
func (b *Broker) issue(kind, name string) tls.Certificate {
	b.t.Helper()
	if b.own != nil {
		return b.signOwn(kind, name)
	}
	bundle, err := server.IssueCertificate(context.Background(), b.Config, kind, name, 24*time.Hour)
	check(b.t, err)
	b.AuthorityPEM = bundle.Authority
	// Another pool than the one that connections read: after a restart the
	// authority may be a new one.
	roots := b.Roots.Clone()
	if !roots.AppendCertsFromPEM(bundle.Authority) {
		b.t.Fatal("the authority's PEM has no certificate")
	}
	b.Roots = roots
	pair, err := tls.X509KeyPair(bundle.Certificate, bundle.Key)
	check(b.t, err)
	return pair
}

// IssueOperator and IssueService make certificates offline.
func (b *Broker) IssueOperator(name string) tls.Certificate { return b.issue("operator", name) }

// IssueService makes a service's certificate offline.
func (b *Broker) IssueService(name string) tls.Certificate { return b.issue("service", name) }

func (b *Broker) run() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	broker, err := server.New(ctx, b.Config, b.log)
	if err != nil {
		cancel()
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- broker.Run(ctx) }()
	b.Server, b.Addr = broker, broker.Addr().String()
	// The port stays the same over a restart.
	b.Config.Listen = b.Addr
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("the broker stopped with %v", err)
		}
	}
}

// Replica starts another broker on the same storage, which must be shared by
// configuration.
func (b *Broker) Replica(configure ...func(*server.Config)) *Broker {
	b.t.Helper()
	r := &Broker{
		t: b.t, STS: b.STS, log: b.log, Roots: b.Roots, AuthorityPEM: b.AuthorityPEM, Config: b.Config, admin: b.admin,
	}
	r.Config.Listen = "127.0.0.1:0"
	for _, change := range configure {
		change(&r.Config)
	}
	r.run()
	b.t.Cleanup(r.Stop)
	r.Admin = r.Dial(r.admin)
	return r
}

// Stop stops the broker and waits for its end; again is nothing.
func (b *Broker) Stop() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// Restart stops the broker and starts it again on the same storage and port.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	b.run()
}

// TLS is a client's configuration; without a certificate where cert is zero.
func (b *Broker) TLS(cert tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: b.Roots, MinVersion: tls.VersionTLS13, ServerName: "localhost"}
	if cert.Certificate != nil {
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

// Dial connects with a certificate; the connection ends with the test.
func (b *Broker) Dial(cert tls.Certificate) *grpc.ClientConn {
	b.t.Helper()
	conn, err := grpc.NewClient(b.Addr, grpc.WithTransportCredentials(credentials.NewTLS(b.TLS(cert))))
	check(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Basic is a context with a login in its metadata.
func Basic(ctx context.Context, login, password string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(login+":"+password)))
}

// Bearer is a context with an access token in its metadata.
func Bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// Tenant makes a tenant.
func (b *Broker) Tenant(name string) {
	b.t.Helper()
	_, err := stokerv1.NewTenantServiceClient(b.Admin).CreateTenant(b.t.Context(),
		&stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: name}}, grpc.WaitForReady(true))
	check(b.t, err)
}

// User makes a user and gives its generated password.
func (b *Broker) User(tenant, login string) string {
	b.t.Helper()
	made, err := stokerv1.NewUserServiceClient(b.Admin).CreateUser(b.t.Context(),
		&stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: tenant, Login: login}})
	check(b.t, err)
	return made.GetGeneratedPassword()
}

// Agent makes an agent with a certificate.
func (b *Broker) Agent(tenant, name string) tls.Certificate {
	b.t.Helper()
	_, err := stokerv1.NewAgentServiceClient(b.Admin).CreateAgent(b.t.Context(),
		&stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: tenant, Name: name}})
	check(b.t, err)
	return b.Certify(tenant, name)
}

// Certify gives an agent another certificate.
func (b *Broker) Certify(tenant, name string) tls.Certificate {
	b.t.Helper()
	if b.own != nil {
		return b.SignAgent(tenant, name, 24*time.Hour)
	}
	key, request, err := pki.NewRequest()
	check(b.t, err)
	issued, err := stokerv1.NewAgentServiceClient(b.Admin).IssueAgentCertificate(b.t.Context(),
		&stokerv1.IssueAgentCertificateRequest{Tenant: tenant, Name: name, CertificateRequest: request})
	check(b.t, err)
	pair, err := pki.Pair(key, issued.GetCertificate().GetCertificatePem())
	check(b.t, err)
	return pair
}

// Location makes a location of the account "main".
func (b *Broker) Location(l *stokerv1.Location) {
	b.t.Helper()
	if l.Account == "" {
		l.Account = "main"
	}
	if l.Region == "" {
		l.Region = "us-east-1"
	}
	_, err := stokerv1.NewLocationServiceClient(b.Admin).CreateLocation(b.t.Context(), &stokerv1.CreateLocationRequest{Location: l})
	check(b.t, err)
}

// Grant makes a grant.
func (b *Broker) Grant(g *stokerv1.Grant, lifetime time.Duration) {
	b.t.Helper()
	g.Lifetime = durationpb.New(lifetime)
	_, err := stokerv1.NewGrantServiceClient(b.Admin).CreateGrant(b.t.Context(), &stokerv1.CreateGrantRequest{Grant: g})
	check(b.t, err)
}
