// Package minio starts a real S3 and STS for tests: one MinIO server a test, on
// loopback, with its data in the test's temporary directory.
package minio

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner"
)

// hint says how to get the programs.
const hint = "run `make partners` and put .tools first on PATH, as `make test` does"

// Server is a running MinIO.
type Server struct {
	// Endpoint is its URL, for S3 and STS alike.
	Endpoint string
	// Region is what requests are signed for.
	Region string
	// AccessKey and SecretKey belong to a user that may use every bucket and
	// nothing else: the broker's own long-term key.
	AccessKey, SecretKey string

	mc     string
	config string
}

const (
	rootUser     = "root-of-minio"
	rootPassword = "root-password-of-minio"
)

// Start starts a server and makes the buckets. It ends with the test.
func Start(t testing.TB, buckets ...string) *Server {
	t.Helper()
	binary := partner.LookPath(t, "minio", hint)
	mc := partner.LookPath(t, "mc", hint)
	dir := t.TempDir()
	address := partner.FreeAddress(t)
	log, err := os.Create(filepath.Join(dir, "minio.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "server", "--quiet", "--address", address, "--console-address", partner.FreeAddress(t), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+rootUser, "MINIO_ROOT_PASSWORD="+rootPassword, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("minio said:\n%s", text)
		}
	})
	s := &Server{
		Endpoint: "http://" + address, Region: "us-east-1",
		AccessKey: "broker-key", SecretKey: "broker-secret-of-minio",
		mc: mc, config: filepath.Join(dir, "mc"),
	}
	s.wait(t)
	s.Admin(t, "alias", "set", "root", s.Endpoint, rootUser, rootPassword)
	s.Admin(t, "admin", "user", "add", "root", s.AccessKey, s.SecretKey)
	s.Admin(t, "admin", "policy", "attach", "root", "readwrite", "--user", s.AccessKey)
	for _, b := range buckets {
		s.Admin(t, "mb", "root/"+b)
	}
	return s
}

// Admin runs mc with the root's rights (alias "root") and gives its output.
func (s *Server) Admin(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(s.mc, append([]string{"--config-dir", s.config, "--json"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *Server) wait(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/minio/health/ready", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("minio is not ready after a minute")
		case <-tick.C:
		}
	}
}
