package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/stokerd/stoker/internal/partner/minio"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// programs is where TestMain builds stokerd, stokerctl, stoker-agent and the
// examples.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "stoker-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		programs = dir
		if out, err := exec.Command("go", "build", "-o", dir+"/", "../../cmd/stokerd", "../../cmd/stokerctl", "../../cmd/stoker-agent", "../../examples/restore-worker").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// site is a provider with a broker, MinIO as S3 and STS, and two tenants that
// share a bucket.
type site struct {
	*brokertest.Broker
	s3  *minio.Server
	dir string
	// passwords by tenant.
	passwords map[string]string
	agents    map[string]tls.Certificate
}

const bucket = "shared"

func newSite(t *testing.T) *site {
	t.Helper()
	s3 := minio.Start(t, bucket)
	b := brokertest.Start(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Accounts = map[string]server.AccountConfig{"main": {
			Method: "assume_role", Region: s3.Region, Endpoint: s3.Endpoint,
			Keys: credentials.NewStaticCredentialsProvider(s3.AccessKey, s3.SecretKey, ""),
		}}
		c.Services = map[string]server.ServiceConfig{"restorer": {Tenants: []string{"alpha"}, Access: []string{"restore"}}}
	}})
	s := &site{Broker: b, s3: s3, dir: t.TempDir(), passwords: map[string]string{}, agents: map[string]tls.Certificate{}}
	b.Location(&stokerv1.Location{Name: "minio", Bucket: bucket, Region: s3.Region, Endpoint: s3.Endpoint})
	for _, tenant := range []string{"alpha", "beta"} {
		b.Tenant(tenant)
		s.passwords[tenant] = b.User(tenant, "backup")
		s.agents[tenant] = b.Agent(tenant, "host")
		b.Grant(&stokerv1.Grant{
			Tenant: tenant, Name: "nightly", Location: "minio", Prefix: tenant + "/", Access: stokerv1.Access_ACCESS_BACKUP,
		}, 15*time.Minute)
	}
	s.write(t, "ca.pem", b.AuthorityPEM, 0o644)
	for tenant, cert := range s.agents {
		brokertest.WritePair(t, s.path(tenant), cert)
		s.write(t, tenant+".password", []byte(s.passwords[tenant]), 0o600)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(s.path(name), data, mode); err != nil {
		t.Fatal(err)
	}
}

// agent prepares a stoker-agent command of a tenant.
func (s *site) agent(ctx context.Context, tenant string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "stoker-agent"), args...)
	cmd.Env = append(clean(),
		"STOKER_BROKER="+s.Addr, "STOKER_CA="+s.path("ca.pem"),
		"STOKER_CERT="+s.path(tenant+".pem"), "STOKER_KEY="+s.path(tenant+".key"),
		"STOKER_LOGIN=backup@"+tenant, "STOKER_PASSWORD_FILE="+s.path(tenant+".password"),
	)
	return cmd
}

// clean is the environment without anything that S3 tools or our own programs
// would take credentials from, and with a home of its own.
func clean() []string {
	env := []string{"HOME=" + programs}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "STOKER_") || name == "HOME" {
			continue
		}
		env = append(env, e)
	}
	return env
}

// run runs a command and gives its output; it must succeed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// fails runs a command that must fail, and gives its output.
func fails(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("%s succeeded:\n%s", strings.Join(cmd.Args, " "), out)
	}
	return string(out)
}
