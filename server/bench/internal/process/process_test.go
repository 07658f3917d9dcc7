package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/bench/internal/process"
)

// childVariable makes the test's own program a child.
const childVariable = "STOKER_PROCESS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// child is what the tests start.
func child() int {
	if os.Getenv(childVariable) == "broken" {
		fmt.Fprintln(os.Stderr, "no such thing")
		return 1
	}
	err := process.Obey(context.Background(), os.Stdin, os.Stdout, process.Ready{Address: "here", Operations: "there"}, map[string]process.Command{
		"burn": func(context.Context, string) (string, error) {
			for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
			}
			return "burnt", nil
		},
		"say":  func(_ context.Context, what string) (string, error) { return what, nil },
		"fail": func(context.Context, string) (string, error) { return "", errors.New("two\nlines") },
		"die":  func(context.Context, string) (string, error) { os.Exit(3); return "", nil },
	})
	if err != nil {
		return 1
	}
	return 0
}

func spec(t *testing.T, kind string) process.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return process.Spec{Program: self, Environment: append(os.Environ(), childVariable+"="+kind), Log: filepath.Join(t.TempDir(), "log")}
}

func start(t *testing.T) *process.Process {
	t.Helper()
	p, err := process.Start(t.Context(), spec(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func ask(t *testing.T, p *process.Process, command string) string {
	t.Helper()
	answer, err := p.Ask(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestCommands(t *testing.T) {
	p := start(t)
	if p.Address != "here" || p.Operations != "there" {
		t.Errorf("ready: %+v", p.Ready)
	}
	if got := ask(t, p, "say this and that"); got != "this and that" {
		t.Errorf("say: %q", got)
	}
	if got := ask(t, p, "collect"); !strings.HasPrefix(got, "heap ") {
		t.Errorf("collect: %q", got)
	}
	if _, err := p.Ask(t.Context(), "fail"); err == nil || !strings.Contains(err.Error(), "fail: two; lines") {
		t.Errorf("fail: %v", err)
	}
	if _, err := p.Ask(t.Context(), "dance"); err == nil {
		t.Error("an unknown command was carried out")
	}
	dir := t.TempDir()
	ask(t, p, "cpu-profile "+filepath.Join(dir, "cpu"))
	if _, err := p.Ask(t.Context(), "cpu-profile "+filepath.Join(dir, "other")); err == nil {
		t.Error("two profiles at once")
	}
	ask(t, p, "end-profile")
	ask(t, p, "heap-profile "+filepath.Join(dir, "heap"))
	for _, name := range []string{"cpu", "heap"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMeasures(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes are measured on Linux alone")
	}
	p := start(t)
	before, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	ask(t, p, "burn")
	after, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else may have had the processor for most of the time.
	if after-before < time.Millisecond || after-before > 10*time.Second {
		t.Errorf("50 ms of work took %v of processor time", after-before)
	}
	m, err := p.Memory()
	if err != nil || m.Resident < 1<<20 || m.Peak < m.Resident/2 {
		t.Errorf("memory %+v, %v", m, err)
	}
	if n, err := p.Descriptors(); err != nil || n < 3 {
		t.Errorf("%d descriptors, %v", n, err)
	}
}

func TestChildrenThatEnd(t *testing.T) {
	broken := spec(t, "broken")
	if _, err := process.Start(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("a child that does not start: %v", err)
	}
	broken.Program = filepath.Join(t.TempDir(), "none")
	if _, err := process.Start(t.Context(), broken); err == nil {
		t.Error("a program that is not there has started")
	}
	p := start(t)
	if _, err := p.Ask(t.Context(), "die"); err == nil {
		t.Error("a dead child has answered")
	}
	<-p.Ended()
	if err := p.Stop(t.Context()); err == nil {
		t.Error("a child that died has stopped well")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("killing the dead: %v", err)
	}
}
