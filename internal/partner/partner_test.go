package partner_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/partner"
)

// recorder stands in for a test and keeps how it ended. Ending one's test ends
// the goroutine, so the code under test runs in a goroutine of its own.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func record(t *testing.T, f func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r
}

func TestMissing(t *testing.T) {
	for _, c := range []struct {
		ci   string
		fail bool
	}{{"", false}, {"false", false}, {"0", false}, {"true", true}, {"1", true}, {"woodpecker", true}} {
		t.Run("CI="+c.ci, func(t *testing.T) {
			t.Setenv("CI", c.ci)
			r := record(t, func(tb testing.TB) { partner.Missing(tb, "frobnicator", "apt install it") })
			said := r.skipped
			if c.fail {
				said = r.failed
			}
			if !strings.Contains(said, "frobnicator") || !strings.Contains(said, "apt install it") {
				t.Errorf("fail=%v: skipped %q, failed %q", c.fail, r.skipped, r.failed)
			}
			if (r.failed != "") != c.fail {
				t.Errorf("failed = %q", r.failed)
			}
		})
	}
}

func TestLookPath(t *testing.T) {
	root := t.TempDir()
	program := func(mode os.FileMode, elements ...string) string {
		path := filepath.Join(append([]string{root}, elements...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	onPath := program(0o755, "path", "first")
	program(0o755, "lib", "14", "bin", "first")
	newest := program(0o755, "lib", "15", "bin", "second")
	program(0o755, "lib", "14", "bin", "second")
	program(0o644, "lib", "15", "bin", "notes")
	t.Setenv("PATH", filepath.Join(root, "path"))
	t.Setenv("CI", "")
	pattern := filepath.Join(root, "lib", "*", "bin")

	if got := partner.LookPath(t, "first", "", pattern); got != onPath {
		t.Errorf("on PATH: %s", got)
	}
	if got := partner.LookPath(t, "second", "", pattern); got != newest {
		t.Errorf("beside PATH: %s, want %s", got, newest)
	}
	for _, name := range []string{"notes", "absent"} {
		r := record(t, func(tb testing.TB) { partner.LookPath(tb, name, "get it", pattern) })
		if !strings.Contains(r.skipped, name) {
			t.Errorf("%s: skipped %q", name, r.skipped)
		}
	}
	if r := record(t, func(tb testing.TB) { partner.LookPath(tb, "absent", "", "[") }); r.failed == "" {
		t.Error("a bad pattern was not reported")
	}
}

// What is given can be listened on, and is given to nobody else then.
func TestFreePort(t *testing.T) {
	given := map[string]bool{}
	for range 20 {
		address := partner.FreeAddress(t)
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if given[address] {
			t.Errorf("%s was given twice", address)
		}
		given[address] = true
	}
}
