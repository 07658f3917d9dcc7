package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server"
)

const minimal = `
trust_domain: backup.example.com
listen: 0.0.0.0:8443
names: [stoker.example.com]
storage: {sqlite: stoker.db}
accounts:
  main:
    method: assume_role
    region: eu-central-1
    role_arn: arn:aws:iam::111122223333:role/stoker
operators: {alice: admin}
`

func TestParseFillsDefaults(t *testing.T) {
	c, err := server.Parse("stoker.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	main := c.Accounts["main"]
	if c.Drain != 20*time.Second || c.Sessions.Lifetime != 12*time.Hour || c.Operations != "127.0.0.1:9464" ||
		c.Log.Level != "info" || c.ConnectionsPerAddress != 1000 || c.Log.Format != "json" || main.MaxLifetime != time.Hour || main.Rate != 100 || main.Revocation != "none" {
		t.Errorf("defaults are missing: %+v", c)
	}
}

func TestParseReportsEverythingAtOnce(t *testing.T) {
	_, err := server.Parse("stoker.yaml", []byte(`trust_domain: Backup_Example
listen: 8443
tls:
  certificate: /nonexistent/server.pem
storage: {sqlite: a, postgres: b}
encryption_key_file: /nonexistent/key
accounts:
  Main:
    method: get_token
    max_lifetime: 90
  far:
    method: federation_token
    region: eu-central-1
    role_arn: arn:aws:iam::111122223333:role/stoker
    max_lifetime: 48h
    rate: -1
    revocation: maybe
operators: {alice: root}
services:
  worker: {tenants: ["*", acme], access: [everything]}
enrollment: {listen: ""}
sessions: {lifetime: 1s}
audit: {retention: 1h}
drain: 1h
log: {level: loud, format: xml}
connections_per_address: -5
colour: blue
`))
	if err == nil {
		t.Fatal("a bad configuration was taken")
	}
	for _, want := range []string{
		`stoker.yaml:1:1: trust_domain: "Backup_Example" is no trust domain`,
		`stoker.yaml:2:1: listen: "8443" is no address`,
		`stoker.yaml:4:3: tls.certificate: stat /nonexistent/server.pem`,
		`stoker.yaml:3:1: tls.key: is missing`,
		`tls.client_authorities: is missing`,
		`stoker.yaml:5:1: storage: name one backend`,
		`stoker.yaml:6:1: encryption_key_file: stat /nonexistent/key`,
		`stoker.yaml:8:3: accounts.Main: "Main" is no name`,
		`stoker.yaml:9:5: accounts.Main.method: "get_token" is not one of [assume_role federation_token]`,
		`stoker.yaml:10:19: accounts.Main.max_lifetime: want a duration with its unit`,
		`accounts.Main.region: is missing`,
		`accounts.far: role_arn and external_id go with assume_role only`,
		`stoker.yaml:15:5: accounts.far.max_lifetime: 48h0m0s is too long; at most 36h0m0s`,
		`accounts.far.rate: want a number of calls a second`,
		`accounts.far.revocation: "maybe" is not one of [none print apply]`,
		`stoker.yaml:18:13: operators.alice: "root" is not one of [viewer operator admin]`,
		`services.worker.tenants: "*" stands alone`,
		`services.worker.access[0]: "everything" is not one of`,
		`enrollment.listen: is missing`,
		`enrollment: needs the built-in authority`,
		`sessions.lifetime: 1s is too short`,
		`audit.retention: 1h0m0s is too short`,
		`drain: 1h0m0s is too long`,
		`log.level: "loud" is not one of`,
		`log.format: "xml" is not one of`,
		`connections_per_address: -5 is out of bounds`,
		`colour: unknown key`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + err.Error())
	}
}

func TestParseWantsTheEssentials(t *testing.T) {
	_, err := server.Parse("stoker.yaml", []byte("log: {level: info}\n"))
	for _, want := range []string{"trust_domain: is missing", "listen: is missing", "storage: name one", "accounts: is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in %v", want, err)
		}
	}
}

func TestLoadNamesTheMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := server.Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Load(path); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(minimal)
	f.Add("accounts: {main: {rate: .nan, max_lifetime: -1h}}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := server.Parse("stoker.yaml", []byte(text))
		if err == nil && (c.TrustDomain == "" || len(c.Accounts) == 0) {
			t.Errorf("an incomplete configuration was taken: %q", text)
		}
	})
}
