package server

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// slug is what names of accounts, operators and services look like.
var slug = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// report says that something is wrong at a path of the configuration.
type report func(path, format string, args ...any)

// check reports all that is wrong with a configuration, whichever way it was
// made. It opens nothing; of files it asks only whether they are there.
func (c *Config) check(wrong report) {
	if c.TrustDomain == "" {
		wrong("trust_domain", "is missing; give the SPIFFE trust domain, such as backup.example.com")
	} else if _, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
		wrong("trust_domain", "%q is no trust domain; use lower-case letters, digits, dots and dashes", c.TrustDomain)
	}
	checkAddress(wrong, "listen", c.Listen)
	if n := c.ConnectionsPerAddress; n < 0 || n > 1_000_000 {
		wrong("connections_per_address", "%d is out of bounds; from 1 to 1000000", n)
	}
	if c.Operations != "" && c.Operations != "off" {
		checkAddress(wrong, "operations", c.Operations)
	}
	c.checkTLS(wrong)
	if (c.Storage.SQLite == "") == (c.Storage.Postgres == "") {
		wrong("storage", "name one backend: sqlite (a path) or postgres (a connection string)")
	}
	if c.EncryptionKeyFile != "" {
		checkFile(wrong, "encryption_key_file", c.EncryptionKeyFile)
	}
	if len(c.Accounts) == 0 {
		wrong("accounts", "is missing; describe at least one STS account")
	}
	for name, a := range c.Accounts {
		a.check(wrong, name)
	}
	for name, role := range c.Operators {
		at := "operators." + name
		checkName(wrong, at, name)
		checkOneOf(wrong, at, role, "viewer", "operator", "admin")
	}
	for name, s := range c.Services {
		s.check(wrong, name)
	}
	if e := c.Enrollment; e != nil {
		checkAddress(wrong, "enrollment.listen", e.Listen)
		checkDuration(wrong, "enrollment.certificate_lifetime", e.CertificateLifetime, time.Hour, 8760*time.Hour)
		checkDuration(wrong, "enrollment.token_lifetime", e.TokenLifetime, time.Minute, 24*time.Hour)
	}
	checkDuration(wrong, "sessions.lifetime", c.Sessions.Lifetime, 5*time.Minute, 168*time.Hour)
	checkDuration(wrong, "audit.retention", c.Audit.Retention, 24*time.Hour, 1<<62)
	checkDuration(wrong, "drain", c.Drain, time.Second, 10*time.Minute)
	checkOneOf(wrong, "log.level", c.Log.Level, "", "debug", "info", "warn", "error")
	checkOneOf(wrong, "log.format", c.Log.Format, "", "json", "text")
	c.Tracing.check(wrong)
}

func (c *Config) checkTLS(wrong report) {
	t := c.TLS
	if t == (TLSConfig{}) {
		return
	}
	for _, f := range []struct{ path, file string }{
		{"tls.certificate", t.Certificate}, {"tls.key", t.Key}, {"tls.client_authorities", t.ClientAuthorities},
	} {
		if f.file == "" {
			wrong(f.path, "is missing; tls needs certificate, key and client_authorities, or leave tls out for the built-in authority")
			continue
		}
		checkFile(wrong, f.path, f.file)
	}
	if t.RevocationList != "" {
		checkFile(wrong, "tls.revocation_list", t.RevocationList)
	}
	if c.Enrollment != nil {
		wrong("enrollment", "needs the built-in authority; leave tls out, or enroll agents with your own PKI")
	}
}

func (c TracingConfig) check(wrong report) {
	if c == (TracingConfig{}) {
		return
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case c.Endpoint == "":
		wrong("tracing.endpoint", "is missing; give the collector's URL, such as https://collector.example.com:4317, or leave tracing out")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "":
		// The text may hold a password.
		wrong("tracing.endpoint", "is no URL such as https://collector.example.com:4317")
	}
	if !(c.Sample >= 0 && c.Sample <= 1) {
		wrong("tracing.sample", "want a number over 0 and at most 1")
	}
}

func (a AccountConfig) check(wrong report, name string) {
	at := "accounts." + name
	checkName(wrong, at, name)
	checkOneOf(wrong, at+".method", a.Method, "assume_role", "federation_token")
	if a.Region == "" {
		wrong(at+".region", "is missing; give the STS region, such as eu-central-1")
	}
	if a.Method == "assume_role" && a.RoleARN == "" && a.Endpoint == "" {
		wrong(at+".role_arn", "is missing; assume_role on AWS needs the role's ARN")
	}
	if a.Method == "federation_token" && (a.RoleARN != "" || a.ExternalID != "") {
		wrong(at, "role_arn and external_id go with assume_role only; remove them")
	}
	longest := 12 * time.Hour
	if a.Method == "federation_token" {
		longest = 36 * time.Hour
	}
	shortest := 15 * time.Minute
	if a.MinLifetime > 0 {
		shortest = a.MinLifetime
	}
	checkDuration(wrong, at+".max_lifetime", a.MaxLifetime, shortest, longest)
	if a.Rate < 0 || a.Rate > 10000 || a.Rate != a.Rate {
		wrong(at+".rate", "want a number of calls a second from 0.1 to 10000")
	} else if a.Rate > 0 && a.Rate < 0.1 {
		wrong(at+".rate", "want at least 0.1 calls a second")
	}
	checkOneOf(wrong, at+".revocation", a.Revocation, "", "none", "print", "apply")
}

func (s ServiceConfig) check(wrong report, name string) {
	at := "services." + name
	checkName(wrong, at, name)
	if len(s.Tenants) == 0 {
		wrong(at+".tenants", `is missing; list tenants, or ["*"] for all`)
	}
	if len(s.Tenants) > 1 && slices.Contains(s.Tenants, "*") {
		wrong(at+".tenants", `"*" stands alone`)
	}
	if len(s.Access) == 0 {
		wrong(at+".access", "is missing; list backup, restore, maintain or actions")
	}
	for i, access := range s.Access {
		checkOneOf(wrong, fmt.Sprintf("%s.access[%d]", at, i), access, "backup", "restore", "maintain", "actions")
	}
}

func checkName(wrong report, at, name string) {
	if !slug.MatchString(name) {
		wrong(at, "%.70q is no name; use up to 63 lower-case letters, digits and dashes", name)
	}
}

func checkAddress(wrong report, at, address string) {
	if address == "" {
		wrong(at, "is missing; give an address such as 0.0.0.0:8443")
		return
	}
	_, port, err := net.SplitHostPort(address)
	if _, number := strconv.ParseUint(port, 10, 16); err != nil || number != nil {
		wrong(at, "%q is no address to listen on; write host:port with a number as port", address)
	}
}

func checkFile(wrong report, at, path string) {
	if _, err := os.Stat(path); err != nil {
		wrong(at, "%v", err)
	}
}

func checkDuration(wrong report, at string, d, least, most time.Duration) {
	switch {
	case d == 0:
	case d < least:
		wrong(at, "%v is too short; at least %v", d, least)
	case d > most:
		wrong(at, "%v is too long; at most %v", d, most)
	}
}

func checkOneOf(wrong report, at, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	shown := slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" })
	if value == "" {
		wrong(at, "is missing; one of %v", shown)
		return
	}
	wrong(at, "%q is not one of %v", value, shown)
}
