package site

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/postgres"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// The names of what is at every site.
const (
	TrustDomain = "bench.stoker.example"
	ServerName  = "localhost"
	Operator    = "bench"
	Account     = "main"
	Login       = "backup"
	Grant       = "nightly"
	location    = "main"
)

// Group is a tenant with agents, whose one grant has this lifetime.
type Group struct {
	Tenant   string
	Agents   int
	Lifetime time.Duration
}

// Config says what to make.
type Config struct {
	// Dir must exist and be empty.
	Dir    string
	Groups []Group
	// Rate is the broker's budget of STS calls a second.
	Rate float64
	// Drain is the broker's drain window; 0 leaves it at its default.
	Drain time.Duration
	// Postgres is the connection string of an empty database; empty: SQLite.
	Postgres string
	// OnIssue is told of each credential that the STS issues; may be nil.
	OnIssue func(devsts.Issued)
}

// Agent is one enrolled installation with its user's login.
type Agent struct {
	Group  int
	Tenant string
	Name   string
	// ID is the agent's in storage, and the value of the session tag.
	ID          string
	Certificate tls.Certificate
	// Token is the access token. It is secret in the sense that the broker
	// accepts it, and worth nothing beyond the site.
	Token string
	// Source is the address that it connects from, its own.
	Source netip.Addr
	// Serial and CertificateEnd are of the certificate.
	Serial         string
	CertificateEnd time.Time
}

// Site is what was made.
type Site struct {
	Config
	Agents   []Agent
	Roots    *x509.CertPool
	Operator tls.Certificate
	// Server is a server certificate of the same authority, for what brokers
	// are compared with.
	Server tls.Certificate
	// Authority is the authority's certificate in PEM.
	Authority []byte
	// Password is that of every user. It is worth nothing beyond the site.
	Password  secret.String
	STS       *STS
	user      devsts.User
	encrypted string // path of the encryption key
}

// defaultDrain is a broker's own.
const defaultDrain = 20 * time.Second

// certificateLife outlasts every measurement.
const certificateLife = 48 * time.Hour

// New makes a site. Close ends its STS; the directory is the caller's.
func New(ctx context.Context, c Config) (_ *Site, err error) {
	s := &Site{Config: c, Roots: x509.NewCertPool(), user: devsts.NewUser("stoker"), encrypted: filepath.Join(c.Dir, "encryption.key")}
	s.STS, err = startSTS(devsts.Config{Users: []devsts.User{s.user}, MinLifetime: time.Second, IssuedLimit: 1, OnIssue: c.OnIssue})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.STS.Close())
		}
	}()
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	key := secret.New(base64.StdEncoding.EncodeToString(raw))
	if err := os.WriteFile(s.encrypted, []byte(key.Reveal()), 0o600); err != nil {
		return nil, err
	}
	if err := s.meetOperator(ctx); err != nil {
		return nil, err
	}
	store, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	sealer, err := pki.NewSealer(key)
	if err != nil {
		return nil, err
	}
	return s, s.populate(ctx, &office{store: store, sealer: sealer})
}

// Close ends the STS.
func (s *Site) Close() error { return s.STS.Close() }

// meetOperator makes the operator's certificate, and with it the authority.
func (s *Site) meetOperator(ctx context.Context) error {
	path, err := s.Write("operator", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config, err := server.Load(path)
	if err != nil {
		return err
	}
	bundle, err := server.IssueCertificate(ctx, config, "operator", Operator, certificateLife)
	if err != nil {
		return err
	}
	s.Operator, err = tls.X509KeyPair(bundle.Certificate, bundle.Key)
	s.Authority = bundle.Authority
	s.Roots.AppendCertsFromPEM(bundle.Authority)
	return err
}

func (s *Site) open(ctx context.Context) (storage.Store, error) {
	log := slog.New(slog.DiscardHandler)
	if s.Postgres != "" {
		return postgres.Open(ctx, s.Postgres, log)
	}
	return sqlite.Open(ctx, filepath.Join(s.Dir, "stoker.db"), log)
}

// Bucket is the bucket of all grants.
const Bucket = "shared-bucket-of-the-provider"

// Prefix is what the grant of a tenant opens.
func Prefix(tenant string) string { return tenant + "/" }

// Write writes the configuration of a broker that listens at the address into
// NAME.yaml, and gives its path.
func (s *Site) Write(name, listen string) (string, error) {
	backend := "sqlite: " + filepath.Join(s.Dir, "stoker.db")
	if s.Postgres != "" {
		backend = fmt.Sprintf("postgres: %q", s.Postgres)
	}
	path := filepath.Join(s.Dir, name+".yaml")
	return path, os.WriteFile(path, fmt.Appendf(nil, `trust_domain: %s
listen: %s
names: [%s, 127.0.0.1]
storage: {%s}
encryption_key_file: %s
accounts:
  %s: {method: federation_token, region: us-east-1, endpoint: "%s", rate: %g}
operators: {%s: admin}
operations: 127.0.0.1:0
drain: %s
sessions: {lifetime: 24h}
log: {level: info, format: json}
`, TrustDomain, listen, ServerName, backend, s.encrypted, Account, s.STS.url, s.Rate, Operator, cmp.Or(s.Drain, defaultDrain)), 0o600)
}

// Environment is what a broker needs in its environment: the keys that it asks
// STS with.
func (s *Site) Environment() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.user.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.user.SecretAccessKey.Reveal()}
}

// ClientTLS is a client's configuration with a certificate.
func (s *Site) ClientTLS(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: s.Roots, Certificates: []tls.Certificate{certificate}, ServerName: ServerName,
		NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}
}
