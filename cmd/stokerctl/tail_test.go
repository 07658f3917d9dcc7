package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/polling"
)

// lines collects what is printed and tells of each line.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		select {
		case l.more <- struct{}{}:
		default:
		}
	}()
	return l.text.Write(p)
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) wait(t *testing.T, fragment string) {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		if strings.Contains(l.all(), fragment) {
			return
		}
		select {
		case <-l.more:
		case <-limit.C:
			t.Fatalf("%q was not printed; this was:\n%s", fragment, l.all())
		}
	}
}

// tailing is a tail that runs until it is interrupted.
type tailing struct {
	out       *lines
	interrupt func(t *testing.T) (code int, problems string)
}

func (p *person) tail(t *testing.T, args ...string) tailing {
	ctx, interrupt := context.WithCancel(t.Context())
	t.Cleanup(interrupt)
	out := &lines{more: make(chan struct{}, 1)}
	type end struct {
		code     int
		problems string
	}
	ended := make(chan end, 1)
	go func() {
		code, problems := p.types(ctx, "", out, append([]string{"audit", "tail"}, args...)...)
		ended <- end{code, problems}
	}()
	return tailing{out, func(t *testing.T) (int, string) {
		interrupt()
		e := <-ended
		return e.code, e.problems
	}}
}

// Tail prints each record once, as it comes, until it is interrupted.
func TestTail(t *testing.T) {
	p := sit(t)
	p.succeeds(t, "tenant", "create", "before")
	tail := p.tail(t, "--since", "1m", "--event", "admin.created")
	tail.out.wait(t, "name=before")
	p.succeeds(t, "tenant", "create", "after")
	tail.out.wait(t, "name=after")
	p.succeeds(t, "tenant", "create", "later")
	tail.out.wait(t, "name=later")
	if code, problems := tail.interrupt(t); code != exitDone || problems != "" {
		t.Errorf("exit code %d after an interrupt: %s", code, problems)
	}
	if text := tail.out.all(); strings.Count(text, "\n") != 3 {
		t.Errorf("printed\n%s", text)
	}
}

// With a place in a file the next tail prints what the last one had not.
func TestTailGoesOn(t *testing.T) {
	p := sit(t)
	place := filepath.Join(t.TempDir(), "place")
	tail := p.tail(t, "--event", "admin.created", "--place", place)
	polling.File(t.Context(), t, place)
	p.succeeds(t, "tenant", "create", "first")
	tail.out.wait(t, "name=first")
	tail.interrupt(t)
	p.succeeds(t, "tenant", "create", "second")
	again := p.tail(t, "--event", "admin.created", "--place", place)
	again.out.wait(t, "name=second")
	again.interrupt(t)
	if text := again.out.all(); strings.Contains(text, "first") {
		t.Errorf("printed again\n%s", text)
	}
}

// A broker that goes away and comes back costs nothing but a line.
func TestTailOutlivesTheBroker(t *testing.T) {
	p := sit(t)
	tail := p.tail(t, "--since", "1m", "--event", "admin.created")
	p.succeeds(t, "tenant", "create", "before")
	tail.out.wait(t, "name=before")
	p.Restart(t)
	p.succeeds(t, "tenant", "create", "after")
	tail.out.wait(t, "name=after")
	code, problems := tail.interrupt(t)
	if code != exitDone || !strings.Contains(problems, "DRAINING") {
		t.Errorf("exit code %d: %s", code, problems)
	}
	if text := tail.out.all(); strings.Count(text, "\n") != 2 {
		t.Errorf("printed\n%s", text)
	}
}

func TestTailRefuses(t *testing.T) {
	p := sit(t)
	damaged := filepath.Join(t.TempDir(), "place")
	if err := os.WriteFile(damaged, []byte("not a cursor\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, attempt := range map[string]struct {
		args []string
		says string
	}{
		"a damaged place":  {[]string{"--place", damaged}, "cursor is not one that this list gave out"},
		"a place nowhere":  {[]string{"--place", filepath.Join(t.TempDir(), "no", "place")}, "no such file"},
		"a negative since": {[]string{"--since", "-1m"}, "--since"},
		"a long event":     {[]string{"--event", strings.Repeat("x", 200)}, "events has 200 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			code, problems := p.types(t.Context(), "", io.Discard, append([]string{"audit", "tail"}, attempt.args...)...)
			if code == exitDone || !strings.Contains(problems, attempt.says) {
				t.Errorf("exit code %d: %s", code, problems)
			}
		})
	}
}
