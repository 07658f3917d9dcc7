package server

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/internal/strictyaml"
	"github.com/stokerd/stoker/server/internal/issuer"
)

// Config is everything that a broker is told. The zero value of a field means
// its default; Load reads one from a file, and New checks it.
type Config struct {
	// TrustDomain is the SPIFFE trust domain of all certificates, such as
	// backup.example.com.
	TrustDomain string `yaml:"trust_domain"`
	// Listen is the address of the gRPC listener, such as 0.0.0.0:8443.
	Listen string `yaml:"listen"`
	// ConnectionsPerAddress is how many connections one client address may
	// have open on that listener; docs/limits.md says what else follows from
	// it. Default 1000. Where a proxy hides the clients' addresses, give the
	// number of all agents.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// Names are the DNS names and addresses that clients reach the broker by.
	// The built-in authority writes them into the server's certificate.
	Names []string `yaml:"names"`
	// TLS names the files of a provider that has a PKI of its own. Where it is
	// left out the built-in authority makes the server's certificate and is
	// the authority for clients.
	TLS TLSConfig `yaml:"tls"`
	// Storage says where the broker keeps what it must not forget.
	Storage StorageConfig `yaml:"storage"`
	// EncryptionKeyFile holds 32 random bytes in base64, under which the
	// broker's own keys are stored. Replicas share it. The environment
	// variable STOKER_ENCRYPTION_KEY serves instead.
	EncryptionKeyFile string `yaml:"encryption_key_file"`
	// Accounts are the STS accounts by name; locations refer to them.
	Accounts map[string]AccountConfig `yaml:"accounts"`
	// Operators gives each operator, by the name in the certificate, a role:
	// viewer, operator or admin. SIGHUP has the broker read this and Services
	// again.
	Operators map[string]string `yaml:"operators"`
	// Services says what each internal service may be given, by the name in
	// its certificate.
	Services map[string]ServiceConfig `yaml:"services"`
	// Enrollment lets new agents get certificates with join tokens. Left out:
	// there is no such listener.
	Enrollment *EnrollmentConfig `yaml:"enrollment"`
	// Sessions says how long a login is good for.
	Sessions SessionsConfig `yaml:"sessions"`
	// Audit says what else happens to the audit trail.
	Audit AuditConfig `yaml:"audit"`
	// Clock is the wall clock that leases and streams go by. Nil: the machine's.
	// It is for measurements, which set it wrong.
	Clock func() time.Time `yaml:"-"`
	// Operations is the address of the HTTP listener for metrics and probes.
	// Default 127.0.0.1:9464; "off" opens none.
	Operations string `yaml:"operations"`
	// Drain is how long a stopping broker gives its streams to leave. Default
	// 20s, at most 10m.
	Drain time.Duration `yaml:"drain"`
	// Log says what is logged, to standard error.
	Log LogConfig `yaml:"log"`
	// Tracing sends spans to an OpenTelemetry collector. Left out: there are
	// none.
	Tracing TracingConfig `yaml:"tracing"`
}

// TLSConfig names PEM files. The broker reads them again when they change.
type TLSConfig struct {
	// Certificate and Key are the server's; the key file must not be readable
	// by others.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// ClientAuthorities signs the clients' certificates.
	ClientAuthorities string `yaml:"client_authorities"`
	// RevocationList is a CRL of those authorities, in PEM or DER.
	RevocationList string `yaml:"revocation_list"`
}

// StorageConfig names one backend.
type StorageConfig struct {
	// SQLite is the path of the database file, created if it is not there.
	SQLite string `yaml:"sqlite"`
	// Postgres is a connection string. The password comes from PGPASSWORD or
	// PGPASSFILE rather than from here.
	Postgres string `yaml:"postgres"`
}

// AccountConfig says how to reach one STS.
type AccountConfig struct {
	// Method is assume_role or federation_token.
	Method string `yaml:"method"`
	// Region is the STS region.
	Region string `yaml:"region"`
	// Endpoint is the URL of an S3-compatible STS. Default: AWS.
	Endpoint string `yaml:"endpoint"`
	// Profile names a profile of the SDK's configuration files with the
	// broker's own keys. Default: the SDK's default chain.
	Profile string `yaml:"profile"`
	// RoleARN and ExternalID go with assume_role.
	RoleARN    string `yaml:"role_arn"`
	ExternalID string `yaml:"external_id"`
	// MaxLifetime bounds the grants' lifetimes. Default 1h.
	MaxLifetime time.Duration `yaml:"max_lifetime"`
	// Rate is how many STS calls a second the broker makes at most. Default
	// 100: AWS allows about 600 for an account and region, for all callers.
	Rate float64 `yaml:"rate"`
	// Revocation says what becomes of credentials already issued when an
	// operator revokes: none (default) lets them run out, print logs the
	// policy that would deny them, apply writes it to the role or IAM user.
	Revocation string `yaml:"revocation"`

	// Keys replaces the broker's own keys; MinLifetime the method's minimum of
	// 15 minutes. Both are for development and tests.
	Keys        aws.CredentialsProvider `yaml:"-"`
	MinLifetime time.Duration           `yaml:"-"`
	// Issuer takes the place of the calls to STS where a measurement is not to
	// include them.
	Issuer issuer.Issuer `yaml:"-"`
}

// ServiceConfig is the rule for one internal service.
type ServiceConfig struct {
	// Tenants lists names of tenants; "*" alone means all.
	Tenants []string `yaml:"tenants"`
	// Access lists what grants it may use: backup, restore, maintain, actions.
	Access []string `yaml:"access"`
}

// EnrollmentConfig describes the listener for new agents.
type EnrollmentConfig struct {
	// Listen is its address. It asks for no client certificate.
	Listen string `yaml:"listen"`
	// CertificateLifetime is how long agents' certificates live. Default 720h,
	// from 1h to 8760h.
	CertificateLifetime time.Duration `yaml:"certificate_lifetime"`
	// TokenLifetime is how long a join token waits. Default 10m, at most 24h.
	TokenLifetime time.Duration `yaml:"token_lifetime"`
}

// SessionsConfig bounds sessions.
type SessionsConfig struct {
	// Lifetime is how long an access token is good for. Default 12h, from 5m
	// to 168h. It never outlives the certificate.
	Lifetime time.Duration `yaml:"lifetime"`
}

// AuditConfig says what else happens to the audit trail.
type AuditConfig struct {
	// Export is a file that each record is also appended to as a line of
	// JSON; "-" is standard output.
	Export string `yaml:"export"`
	// Retention is how long records are kept. Default: for ever. At least
	// 24h.
	Retention time.Duration `yaml:"retention"`
}

// LogConfig says what is logged.
type LogConfig struct {
	// Level is debug, info (default), warn or error.
	Level string `yaml:"level"`
	// Format is json (default) or text.
	Format string `yaml:"format"`
}

// TracingConfig says where spans go.
type TracingConfig struct {
	// Endpoint is the URL of a collector that takes OTLP over gRPC, such as
	// https://collector.example.com:4317. http:// is without TLS. Headers and
	// certificates for it come from the standard OTEL_EXPORTER_OTLP_*
	// environment variables, attributes of all spans from
	// OTEL_RESOURCE_ATTRIBUTES.
	Endpoint string `yaml:"endpoint"`
	// Sample is the part of the traces that is kept, over 0 and at most 1.
	// Default 1.
	Sample float64 `yaml:"sample"`
}

// Load reads a configuration file. It reports everything that is wrong with
// the file at once, each with its place; nothing is opened yet.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for text that is already read.
func Parse(name string, data []byte) (Config, error) {
	var c Config
	doc := strictyaml.Decode(name, data, &c)
	c.check(doc.Add)
	if err := doc.Err(); err != nil {
		return Config{}, err
	}
	c.setDefaults()
	return c, nil
}

func (c *Config) setDefaults() {
	set(&c.Drain, 20*time.Second)
	set(&c.ConnectionsPerAddress, defaultPerAddress)
	set(&c.Operations, "127.0.0.1:9464")
	set(&c.Log.Level, "info")
	set(&c.Log.Format, "json")
	set(&c.Sessions.Lifetime, 12*time.Hour)
	if c.Tracing.Endpoint != "" {
		set(&c.Tracing.Sample, 1)
	}
	if c.Enrollment != nil {
		e := *c.Enrollment
		set(&e.CertificateLifetime, 720*time.Hour)
		set(&e.TokenLifetime, 10*time.Minute)
		c.Enrollment = &e
	}
	accounts := make(map[string]AccountConfig, len(c.Accounts))
	for name, a := range c.Accounts {
		set(&a.MaxLifetime, time.Hour)
		set(&a.Rate, 100)
		set(&a.Revocation, "none")
		accounts[name] = a
	}
	c.Accounts = accounts
	if len(c.Names) == 0 {
		if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
			c.Names = []string{host}
		}
	}
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
