package e2e_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/transcript"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/pki"
)

// daemon is a stokerd process with a configuration file, as a provider runs it,
// on a local STS.
type daemon struct {
	t      testing.TB
	dir    string
	addr   string
	config string
	sts    *devsts.Server
	user   devsts.User
	roots  *x509.CertPool
	admin  *grpc.ClientConn

	cmd *exec.Cmd
	log *transcript.Transcript
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDaemon prepares a directory, makes the operator's certificate with
// `stokerd certificate`, and starts the broker.
func newDaemon(t *testing.T, storage string) *daemon {
	t.Helper()
	user := devsts.NewUser("stoker")
	sts, err := devsts.Start(devsts.Config{Users: []devsts.User{user}})
	must(t, err)
	t.Cleanup(func() { _ = sts.Close() })
	addr := partner.FreeAddress(t)
	d := &daemon{t: t, dir: t.TempDir(), addr: addr, sts: sts, user: user, roots: x509.NewCertPool(), log: &transcript.Transcript{}}
	d.config = filepath.Join(d.dir, "stoker.yaml")
	key := make([]byte, 32)
	_, err = rand.Read(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(d.dir, "key"), []byte(base64.StdEncoding.EncodeToString(key)), 0o600))
	if storage == "" {
		storage = "sqlite: " + filepath.Join(d.dir, "stoker.db")
	}
	must(t, os.WriteFile(d.config, fmt.Appendf(nil, `
trust_domain: test.example
listen: %s
names: [localhost, 127.0.0.1]
storage: {%s}
encryption_key_file: %s
accounts:
  main: {method: federation_token, region: us-east-1, endpoint: "%s"}
operators: {root: admin}
operations: "off"
drain: 2s
log: {level: warn}
`, addr, storage, filepath.Join(d.dir, "key"), sts.URL()), 0o600))
	run(t, d.stokerd(t.Context(), "certificate", "operator", "root", "--config", d.config, "--out", d.dir))
	authority, err := os.ReadFile(filepath.Join(d.dir, "ca.pem"))
	must(t, err)
	d.roots.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(filepath.Join(d.dir, "root.pem"), filepath.Join(d.dir, "root.key"))
	must(t, err)
	d.start()
	t.Cleanup(func() { d.kill() })
	d.admin, err = grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: d.roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
	})))
	must(t, err)
	t.Cleanup(func() { _ = d.admin.Close() })
	return d
}

func (d *daemon) stokerd(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "stokerd"), args...)
	cmd.Env = append(clean(), "AWS_ACCESS_KEY_ID="+d.user.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+d.user.SecretAccessKey.Reveal())
	return cmd
}

// start starts the broker and waits until it listens.
func (d *daemon) start() {
	d.t.Helper()
	d.cmd = d.stokerd(context.Background(), "serve", "--config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	must(d.t, d.cmd.Start())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", d.addr); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			d.t.Fatalf("stokerd does not listen; it said:\n%s", d.log)
		case <-tick.C:
		}
	}
}

// kill ends the broker with SIGKILL, as a crash does.
func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(syscall.SIGKILL)
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// fleet makes a tenant with a user, a location, a grant and agents with
// certificates.
func (d *daemon) fleet(ctx context.Context, agents int, lifetime time.Duration) (password string, certs []tls.Certificate) {
	d.t.Helper()
	_, err := stokerv1.NewTenantServiceClient(d.admin).CreateTenant(ctx, &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme"}}, grpc.WaitForReady(true))
	must(d.t, err)
	user, err := stokerv1.NewUserServiceClient(d.admin).CreateUser(ctx, &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "backup"}})
	must(d.t, err)
	_, err = stokerv1.NewLocationServiceClient(d.admin).CreateLocation(ctx, &stokerv1.CreateLocationRequest{
		Location: &stokerv1.Location{Name: "main", Account: "main", Bucket: "shared-bucket", Region: "us-east-1"},
	})
	must(d.t, err)
	_, err = stokerv1.NewGrantServiceClient(d.admin).CreateGrant(ctx, &stokerv1.CreateGrantRequest{Grant: &stokerv1.Grant{
		Tenant: "acme", Name: "nightly", Location: "main", Prefix: "acme/", Access: stokerv1.Access_ACCESS_BACKUP, Lifetime: duration(lifetime),
	}})
	must(d.t, err)
	for i := range agents {
		certs = append(certs, d.agent(ctx, fmt.Sprintf("agent-%d", i)))
	}
	return user.GetGeneratedPassword(), certs
}

func (d *daemon) agent(ctx context.Context, name string) tls.Certificate {
	d.t.Helper()
	client := stokerv1.NewAgentServiceClient(d.admin)
	_, err := client.CreateAgent(ctx, &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: name}})
	must(d.t, err)
	key, request, err := pki.NewRequest()
	must(d.t, err)
	issued, err := client.IssueAgentCertificate(ctx, &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: name, CertificateRequest: request})
	must(d.t, err)
	cert, err := pki.Pair(key, issued.GetCertificate().GetCertificatePem())
	must(d.t, err)
	return cert
}
