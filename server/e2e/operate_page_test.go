package e2e_test

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// operating is a broker's machine, as docs/operate.md has it.
type operating struct {
	*daemon
	work     string // where the operator stands
	database string // PostgreSQL, or ""
	blocks   map[string]string
}

func newOperating(t *testing.T, database string) *operating {
	t.Helper()
	partner.LookPath(t, "openssl", "install OpenSSL 3")
	storage := ""
	if database != "" {
		storage = `postgres: "` + database + `"`
	}
	o := &operating{daemon: newDaemon(t, storage), work: t.TempDir(), database: database, blocks: map[string]string{}}
	must(t, os.Mkdir(filepath.Join(o.work, "backups"), 0o700))
	for _, b := range readPage(t, "operate.md").blocks() {
		kind, isShell := strings.CutPrefix(b.kind, "sh ")
		if _, twice := o.blocks[kind]; twice || !isShell {
			t.Fatalf("the page has %q twice, or it is none of a shell", b.kind)
		}
		o.blocks[kind] = b.text
	}
	text, err := os.ReadFile(o.config)
	must(t, err)
	must(t, os.WriteFile(o.config, []byte(strings.Replace(string(text), "{root: admin}", "{root: admin, alice: admin}", 1)), 0o600))
	o.stop(t)
	return o
}

// stop ends the broker with SIGTERM, as systemd does.
func (o *operating) stop(t *testing.T) {
	t.Helper()
	if o.cmd == nil {
		return
	}
	must(t, o.cmd.Process.Signal(syscall.SIGTERM))
	if err := o.cmd.Wait(); err != nil {
		t.Errorf("the broker ended with %v:\n%s", err, o.log)
	}
	o.cmd = nil
}

// do runs a block of the page.
func (o *operating) do(ctx context.Context, t *testing.T, kind string) {
	t.Helper()
	text, ok := o.blocks[kind]
	if !ok {
		t.Fatalf("the page has no block %q", kind)
	}
	for line := range strings.Lines(text) {
		switch strings.TrimSpace(line) {
		case "systemctl stop stokerd":
			o.stop(t)
		case "systemctl start stokerd", "systemctl enable --now stokerd":
			o.start()
		case "systemctl restart stokerd":
			o.stop(t)
			o.start()
		default:
			run(t, o.shell(ctx, line))
		}
	}
}

// shell prepares a line of the page.
func (o *operating) shell(ctx context.Context, line string) *exec.Cmd {
	for _, r := range [][2]string{
		{" -o stoker -g stoker", ""}, // who runs tests has no such user
		{"chown stoker ", "test -f "},
		{"/etc/stoker/stoker.yaml", o.config},
		{"/etc/stoker/encryption.key", filepath.Join(o.dir, "key")},
		{"/var/lib/stoker/", o.dir + "/"},
		{"/var/backups/stoker/", filepath.Join(o.work, "backups") + "/"},
	} {
		line = strings.ReplaceAll(line, r[0], r[1])
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	cmd.Dir = o.work
	cmd.Env = append(clean(), "PATH="+programs+":"+os.Getenv("PATH"), "DATABASE="+o.database,
		"AWS_ACCESS_KEY_ID="+o.user.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+o.user.SecretAccessKey.Reveal(),
		"STOKER_BROKER="+o.addr, "STOKER_CA=alice/ca.pem", "STOKER_CERT=alice/alice.pem", "STOKER_KEY=alice/alice.key")
	return cmd
}

// alice connects with the certificate that the page made last.
func (o *operating) alice(t *testing.T) *grpc.ClientConn {
	t.Helper()
	dir := filepath.Join(o.work, "alice")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "alice.pem"), filepath.Join(dir, "alice.key"))
	must(t, err)
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	must(t, err)
	o.roots = o.roots.Clone() // connections of before still read the other
	if !o.roots.AppendCertsFromPEM(authority) {
		t.Fatal("alice/ca.pem has no certificate")
	}
	conn, err := grpc.NewClient(o.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: o.roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
	})))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (o *operating) intact(t *testing.T, want bool) {
	t.Helper()
	verified, err := stokerv1.NewAuditServiceClient(o.admin).Verify(t.Context(), &stokerv1.VerifyRequest{})
	must(t, err)
	if verified.GetIntact() != want {
		t.Errorf("the audit trail is whole: %v\n%v", !want, verified)
	}
}

// supplied waits until the agent is connected so often, and looks whether it
// still has a credential.
func (o *operating) supplied(ctx context.Context, t *testing.T, a *held, connections int32) client.Credential {
	t.Helper()
	polling.Until(ctx, t, "the agent to be back", func() bool { return a.connected.Load() >= connections })
	c, err := a.Credential("nightly")
	must(t, err)
	return c
}

// The commands of docs/operate.md install, back up, restore and rotate, and what
// the page says of agents meanwhile holds.
func TestOperateAsDocumented(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { operateAsDocumented(t, "", "") })
	t.Run("postgres", func(t *testing.T) {
		for _, program := range []string{"pg_dump", "pg_restore"} {
			partner.LookPath(t, program, "install Debian's postgresql-15")
		}
		operateAsDocumented(t, postgres.Start(t).Database(t), " postgres")
	})
}

func operateAsDocumented(t *testing.T, database, suffix string) {
	// An agent whose broker stops again and again comes back after up to a minute.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	o := newOperating(t, database)
	o.do(ctx, t, "first")
	o.do(ctx, t, "operator")
	password, certs := o.fleet(ctx, 1, time.Hour)
	agent := o.hold(t, certs[0], password)
	must(t, agent.Wait(ctx, "nightly"))
	first := o.supplied(ctx, t, agent, 1)
	logins := func() int { return o.count(t, "session.created") }
	before := logins()

	// What comes after the backup is gone after the restore; what the agent
	// held then is resumed, after one login.
	o.do(ctx, t, "backup"+suffix)
	tenants := stokerv1.NewTenantServiceClient(o.admin)
	_, err := tenants.CreateTenant(ctx, &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "later"}})
	must(t, err)
	o.do(ctx, t, "restore"+suffix)
	if c := o.supplied(ctx, t, agent, 2); c.ID != first.ID {
		t.Error("after the restore the agent has another credential")
	}
	if _, err := tenants.GetTenant(ctx, &stokerv1.GetTenantRequest{Name: "later"}); status.Code(err) != codes.NotFound {
		t.Errorf("what came after the backup: %v", err)
	}
	if n := logins(); n != before+1 {
		t.Errorf("the restore cost %d logins", n-before)
	}
	o.intact(t, true)

	o.do(ctx, t, "reseal")
	if c := o.supplied(ctx, t, agent, 3); c.ID != first.ID {
		t.Error("after the encryption key's rotation the agent has another credential")
	}
	if n := logins(); n != before+1 {
		t.Errorf("the encryption key's rotation cost %d logins", n-before-1)
	}
	o.intact(t, true)

	o.do(ctx, t, "tokens")
	if c := o.supplied(ctx, t, agent, 4); c.ID != first.ID {
		t.Error("after the token keys' rotation the agent has another credential")
	}
	if n := logins(); n != before+2 {
		t.Errorf("the token keys' rotation cost %d logins", n-before-1)
	}
	if n := o.sts.Calls()["GetFederationToken"]; n != 1 {
		t.Errorf("all that cost %d STS calls", n-1)
	}

	o.do(ctx, t, "authority")
	o.renewed(ctx, t, "authority", password)
	o.intact(t, true)
	o.do(ctx, t, "lost")
	o.renewed(ctx, t, "lost", password)
	o.intact(t, false)
	if _, err := agent.Credential("nightly"); err != nil {
		t.Errorf("the old agent has not kept its credential: %v", err)
	}
}

// renewed looks whether old certificates are void, and new ones good.
func (o *operating) renewed(ctx context.Context, t *testing.T, name, password string) {
	t.Helper()
	if _, err := stokerv1.NewTenantServiceClient(o.admin).ListTenants(ctx, &stokerv1.ListTenantsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("with the old authority's certificate: %v", err)
	}
	o.admin = o.alice(t)
	must(t, o.hold(t, o.agent(ctx, name), password).Wait(ctx, "nightly"))
}

// Every block of docs/operate.md is run, but for the one that needs root.
func TestOperatePageIsRun(t *testing.T) {
	source, err := os.ReadFile("operate_page_test.go")
	must(t, err)
	for _, b := range readPage(t, "operate.md").blocks() {
		kind := strings.TrimSuffix(strings.TrimPrefix(b.kind, "sh "), " postgres")
		if kind != "install" && !strings.Contains(string(source), `o.do(ctx, t, "`+kind+`"`) {
			t.Errorf("nothing runs this %s:\n%s", b.kind, b.text)
		}
	}
}
