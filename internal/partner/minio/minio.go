// Package minio starts a real S3 and STS for tests: one MinIO server a test, on
// loopback, with its data in the test's temporary directory.
package minio

import (
	"context"
	"fmt"
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
	// A server that answers is not ready for all that it is asked: its users come
	// last.
	s.until(t, "alias", "set", "root", s.Endpoint, rootUser, rootPassword)
	s.until(t, "admin", "user", "add", "root", s.AccessKey, s.SecretKey)
	s.Admin(t, "admin", "policy", "attach", "root", "readwrite", "--user", s.AccessKey)
	for _, b := range buckets {
		s.Admin(t, "mb", "root/"+b)
	}
	return s
}

// Admin runs mc with the root's rights (alias "root") and gives its output.
func (s *Server) Admin(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *Server) run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, s.mc, append([]string{"--config-dir", s.config, "--json"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mc %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// until runs mc until it succeeds, for a minute.
func (s *Server) until(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.run(ctx, args...)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("minio is not ready after a minute: %v", err)
		case <-tick.C:
		}
	}
}
