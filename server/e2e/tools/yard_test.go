//go:build unix

package tools_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stokerd/stoker/internal/partner/minio"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

const (
	bucket         = "backups"
	accessBackup   = stokerv1.Access_ACCESS_BACKUP
	accessRestore  = stokerv1.Access_ACCESS_RESTORE
	accessMaintain = stokerv1.Access_ACCESS_MAINTAIN
)

// yard is where tools work: MinIO behind a gate, a broker, and one tenant with
// a user for each way of delivery.
type yard struct {
	*brokertest.Broker
	t         *testing.T
	minio     *minio.Server
	gate      *gate
	dir       string
	lifetime  time.Duration
	took      time.Duration     // its start
	passwords map[string]string // by login
}

// yards are started one at a time: each starts programs that are slow to start.
var yards sync.Mutex

// newYard starts everything for credentials of this lifetime.
func newYard(t *testing.T, lifetime time.Duration) *yard {
	t.Helper()
	yards.Lock()
	defer yards.Unlock()
	began := time.Now()
	y := &yard{t: t, minio: minio.Start(t, bucket), dir: t.TempDir(), lifetime: lifetime, passwords: make(map[string]string)}
	y.gate = newGate(t, y.minio)
	y.Broker = brokertest.Start(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Accounts = map[string]server.AccountConfig{"main": {
			Method: "assume_role", Region: y.minio.Region, Endpoint: y.gate.URL,
			Keys:        credentials.NewStaticCredentialsProvider(y.minio.AccessKey, y.minio.SecretKey, ""),
			MinLifetime: time.Second, MaxLifetime: time.Hour, Rate: 1000,
		}}
	}})
	y.place(bucket, bucket)
	y.Tenant("acme")
	for _, login := range []string{"backup", "exec"} {
		y.passwords[login+"@acme"] = y.User("acme", login)
	}
	y.write(t, "ca.pem", y.AuthorityPEM)
	y.took = time.Since(began)
	return y
}

// place makes a location of a bucket.
func (y *yard) place(location, bucket string) {
	y.Location(&stokerv1.Location{Name: location, Bucket: bucket, Region: y.minio.Region, Endpoint: y.gate.URL})
}

// grant makes a grant of one user, whose prefix is its name.
func (y *yard) grant(t *testing.T, name, user string, access stokerv1.Access) {
	t.Helper()
	login, _, _ := strings.Cut(user, "@")
	y.Grant(&stokerv1.Grant{Tenant: "acme", Login: login, Name: name, Location: bucket, Prefix: name + "/", Access: access}, y.lifetime)
}

// under makes a grant of the user "backup" for a prefix.
func (y *yard) under(t *testing.T, name, prefix string, access stokerv1.Access) {
	t.Helper()
	y.Grant(&stokerv1.Grant{Tenant: "acme", Login: "backup", Name: name, Location: bucket, Prefix: prefix, Access: access}, y.lifetime)
}

func (y *yard) path(elements ...string) string {
	return filepath.Join(append([]string{y.dir}, elements...)...)
}

// write writes a file of y's directory, for its owner alone.
func (y *yard) write(t *testing.T, name string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(y.path(name)), 0o700))
	must(t, os.WriteFile(y.path(name), data, 0o600))
}

// identity makes an agent with files for it, and gives stoker-agent's settings.
func (y *yard) identity(t *testing.T, name, user string) []string {
	t.Helper()
	cert := y.Agent("acme", name)
	brokertest.WritePair(t, y.path(name), cert)
	y.write(t, name+".password", []byte(y.passwords[user]))
	return []string{
		"STOKER_BROKER=" + y.Addr, "STOKER_CA=" + y.path("ca.pem"),
		"STOKER_CERT=" + y.path(name+".pem"), "STOKER_KEY=" + y.path(name+".key"),
		"STOKER_LOGIN=" + user, "STOKER_PASSWORD_FILE=" + y.path(name+".password"),
	}
}

// agent is a running "stoker-agent run".
type agent struct {
	url     string // of the endpoint, without a grant's name
	runtime string // its XDG_RUNTIME_DIR, where token and socket are
	file    string // the shared-credentials file
	stop    func()
}

var endpointURL = regexp.MustCompile(`http://[^/\s]+/v1/credentials`)

// run starts an agent for grants of the user "backup", with a profile for each.
func (y *yard) run(t *testing.T, grants ...string) *agent {
	t.Helper()
	a := &agent{runtime: y.path("run"), file: y.path("shared", "credentials")}
	must(t, os.MkdirAll(a.runtime, 0o700))
	args := []string{"run", "--listen", "127.0.0.1:0", "--credentials-file", a.file}
	for _, g := range grants {
		args = append(args, "--grant", g)
	}
	cmd := exec.Command(filepath.Join(programs, "stoker-agent"), args...)
	cmd.Env = append(clean(y.dir), y.identity(t, "nas", "backup@acme")...)
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+a.runtime)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	a.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("stoker-agent: %v", err)
		}
		a.stop = func() {}
	}
	t.Cleanup(func() { a.stop() })
	lines := bufio.NewScanner(out)
	for a.url == "" && lines.Scan() {
		a.url = endpointURL.FindString(lines.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if a.url == "" {
		t.Fatal("stoker-agent named no endpoint")
	}
	// All of them are there once the file has a profile for each.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	polling.Until(ctx, t, "the agent's credentials", func() bool {
		text, _ := os.ReadFile(a.file)
		return strings.Count(string(text), "aws_session_token") == len(grants)
	})
	return a
}

// clean is this environment with a home of its own and without anything that
// tools would take credentials from. Nothing but this machine can be reached
// through it: a tool that looks for cloud metadata finds none at once.
func clean(home string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, ".config"), "XDG_CACHE_HOME=" + filepath.Join(home, ".cache")}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		kept := true
		for _, prefix := range []string{"AWS_", "STOKER_", "MINIO_", "RESTIC_", "RCLONE_", "KOPIA_", "XDG_", "HOME"} {
			kept = kept && !strings.HasPrefix(name, prefix)
		}
		if kept && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, e)
		}
	}
	return append(env, "AWS_EC2_METADATA_DISABLED=true", "http_proxy=http://127.0.0.1:9", "no_proxy=127.0.0.1,localhost")
}

// one gets a credential of the user "backup", as a thief of an agent would.
func (y *yard) one(t *testing.T, grant string) *stokerv1.Credential {
	t.Helper()
	cert := y.Agent("acme", "of-"+grant)
	answer, err := stokerv1.NewCredentialServiceClient(y.Dial(cert)).GetCredentials(
		brokertest.Basic(t.Context(), "backup@acme", y.passwords["backup@acme"]),
		&stokerv1.GetCredentialsRequest{Grants: []string{grant}, MinLife: durationpb.New(time.Second)})
	must(t, err)
	return answer.GetCredentials()[0]
}

// client is an S3 client with fixed keys.
func (y *yard) client(c *stokerv1.Credential) *s3.Client {
	return s3.New(s3.Options{
		Region: y.minio.Region, BaseEndpoint: aws.String(y.gate.URL), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(c.GetAccessKeyId(), c.GetSecretAccessKey(), c.GetSessionToken()),
	})
}

func put(ctx context.Context, c *s3.Client, key string) error {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: strings.NewReader("x")})
	return err
}

func denied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "AccessDenied"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
