package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/polling"
	"github.com/stokerd/stoker/internal/transcript"
	"github.com/stokerd/stoker/proto/manual"
)

// development starts `stokerd dev` in a directory of its own, and gives that
// and the addresses of its two listeners.
func development(ctx context.Context, t *testing.T, args ...string) (dir, main, enrollment string) {
	t.Helper()
	dir = t.TempDir()
	out := &transcript.Transcript{}
	cmd := exec.Command(filepath.Join(programs, "stokerd"), slices.Concat([]string{"dev", "--listen", "127.0.0.1:0"}, args)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, clean(), out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("stokerd dev ended with %v:\n%s", err, out)
		}
	})
	banner := regexp.MustCompile(`(?s)broker 127\.0\.0\.1:(\d+), enrollment 127\.0\.0\.1:(\d+),.*Control-C`)
	polling.Until(ctx, t, "the banner", func() bool { return banner.MatchString(out.String()) })
	ports := banner.FindStringSubmatch(out.String())
	return dir, "localhost:" + ports[1], "localhost:" + ports[2]
}

// Every command of docs/grpcurl.md prints what the page says.
func TestGrpcurlAsDocumented(t *testing.T) {
	grpcurl := partner.LookPath(t, "grpcurl", partners)
	partner.LookPath(t, "openssl", "install OpenSSL 3")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir, main, enrollment := development(ctx, t, "--lifetime", "15m")
	readPage(t, "grpcurl.md").play(ctx, t, stage{
		dir: dir, env: append(clean(), "PATH="+filepath.Dir(grpcurl)+":"+os.Getenv("PATH")),
		names: map[string]string{main: "localhost:8443", enrollment: "localhost:8444"},
	})
}

// docs/grpcurl.md makes every call there is.
func TestGrpcurlPageIsWhole(t *testing.T) {
	commands := ""
	for _, e := range readPage(t, "grpcurl.md").exchanges() {
		commands += e.command
	}
	files, err := manual.Load()
	must(t, err)
	files.Range(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				call := string(s.FullName()) + "/" + string(s.Methods().Get(j).Name())
				if !strings.Contains(commands, call+"\n") && !strings.Contains(commands, call+" ") {
					t.Errorf("the page does not show %s", call)
				}
			}
		}
		return true
	})
}
