package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script gives a command that a shell runs.
func script(text string) []string { return []string{"/bin/sh", "-c", text} }

func TestProcess(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	err := runProcess(t.Context(), script(`echo "$STOKER_EVENT $SECRET" > "$OUT"; cat >> "$OUT"`), []string{"OUT=" + out, "STOKER_EVENT=renewal"})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "renewal \n" {
		t.Errorf("it saw %q, %v", text, err)
	}
	for text, says := range map[string]string{"exit 3": "exit code 3", "kill -9 $$": "killed"} {
		if err := runProcess(t.Context(), script(text), nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := runProcess(t.Context(), []string{"/nonexistent/hook"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a program: %v", err)
	}
}

// A command that takes too long ends with all that it has started, although that
// does not heed the signal.
func TestProcessEndsWithItsChildren(t *testing.T) {
	pids, other := filepath.Join(t.TempDir(), "pid"), ""
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- runProcess(ctx, script(`(trap "" TERM; echo begun > "$OUT"; while :; do sleep 1; done) & wait`), []string{"OUT=" + pids, "PATH=" + os.Getenv("PATH")})
	}()
	for deadline := time.Now().Add(30 * time.Second); other == ""; {
		text, err := os.ReadFile(pids)
		if err == nil {
			other = string(text)
		} else if time.Now().After(deadline) {
			t.Fatal("it did not begin")
		}
	}
	before := children(t)
	cancel()
	if err := <-ended; err == nil {
		t.Error("it ended well")
	}
	if len(before) == 0 {
		t.Error("there was no process group")
	}
	for _, group := range before {
		// What was killed lies about until init has reaped it.
		for deadline := time.Now().Add(30 * time.Second); ; {
			err := syscall.Kill(-group, 0)
			if errors.Is(err, syscall.ESRCH) || zombies(group) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("group %d goes on: %v", group, err)
			}
		}
	}
}

// stat gives the state, the parent and the process group of each process.
func stat(f func(pid, parent, group int, state string)) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, _ := strconv.Atoi(fields[1])
		group, _ := strconv.Atoi(fields[2])
		f(pid, parent, group, fields[0])
	}
}

// children gives the process groups of this process's children.
func children(t *testing.T) []int {
	t.Helper()
	var groups []int
	stat(func(pid, parent, group int, _ string) {
		if parent == os.Getpid() && pid == group {
			groups = append(groups, group)
		}
	})
	return groups
}

// zombies says whether all of a group have ended.
func zombies(group int) bool {
	alive := false
	stat(func(_, _, of int, state string) { alive = alive || (of == group && state != "Z") })
	return !alive
}
