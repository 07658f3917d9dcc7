package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
)

// paper is a sink in memory that can fail, tear a write, and hang.
type paper struct {
	mu     sync.Mutex
	text   bytes.Buffer
	err    error
	tear   int // bytes that one failing write still takes
	gate   chan struct{}
	writes int
}

func (p *paper) set(change func(*paper)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	if p.err != nil {
		n := min(p.tear, len(b))
		p.tear -= n
		p.text.Write(b[:n])
		return n, p.err
	}
	return p.text.Write(b)
}

func (p *paper) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// lines are what a sink must hold for the stored records.
func lines(records []storage.AuditRecord) string {
	var b []byte
	for _, r := range records {
		b = audit.AppendLine(b, r)
	}
	return string(b)
}

func fill(t *testing.T, trail *audit.Trail, from, to int) {
	t.Helper()
	var a answers
	for i := from; i < to; i++ {
		a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
	}
	a.wg.Wait()
	for id, err := range a.got {
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

func TestSinkGetsEveryRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake(), &paper{}
		trail := open(t, f, audit.Options{Sink: p})
		fill(t, trail, 0, 700)
		synctest.Wait()
		if got := p.String(); got != lines(f.stored()) {
			t.Errorf("%d bytes in the sink, want %d", len(got), len(lines(f.stored())))
		}
		if s := trail.Stats().Sink; s != (audit.SinkStats{Lines: 701}) || trail.SinkHealthy() != nil {
			t.Errorf("stats %+v, %v", s, trail.SinkHealthy())
		}
	})
}

// A sink that hangs delays nobody and costs no more memory than its bound;
// afterwards it gets the rest from storage.
func TestSinkHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake(), &paper{gate: make(chan struct{})}
		trail := open(t, f, audit.Options{Sink: p})
		begun := time.Now()
		fill(t, trail, 0, 4500) // more than wait in memory
		if took := time.Since(begun); took > 0 {
			t.Errorf("appending took %v", took)
		}
		if s := trail.Stats().Sink; s.Behind != 4501 {
			t.Errorf("stats %+v", s)
		}
		close(p.gate)
		synctest.Wait()
		if p.String() != lines(f.stored()) || trail.Stats().Sink.Behind != 0 {
			t.Errorf("the sink did not catch up: %+v", trail.Stats().Sink)
		}
	})
}

// A sink that fails, in the middle of a line too, is tried again; every record
// gets its whole line, once.
func TestSinkFails(t *testing.T) {
	for _, tear := range []int{0, 1, 100, 1500, 5000} {
		t.Run(fmt.Sprint("after ", tear), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, p := newFake(), &paper{}
				trail := open(t, f, audit.Options{Sink: p})
				synctest.Wait()
				p.set(func(p *paper) { p.err, p.tear = errors.New("disk full"), tear })
				fill(t, trail, 0, 20)
				<-time.After(2 * time.Minute)
				if err := trail.SinkHealthy(); err == nil || !strings.Contains(err.Error(), "disk full") {
					t.Errorf("SinkHealthy = %v", err)
				}
				if err := trail.Healthy(); err != nil {
					t.Errorf("Healthy = %v: the sink must not matter", err)
				}
				if p.writes > 80 || trail.Stats().Sink.Failures < 10 {
					t.Errorf("%d writes, %+v", p.writes, trail.Stats().Sink)
				}
				p.set(func(p *paper) { p.err = nil })
				<-time.After(5 * time.Second)
				synctest.Wait()
				if err := trail.SinkHealthy(); err != nil {
					t.Errorf("SinkHealthy = %v", err)
				}
				checkLines(t, p.String(), f.stored())
				if n := trail.Stats().Sink.Lines; n != 21 {
					t.Errorf("%d lines counted", n)
				}
			})
		})
	}
}

// checkLines checks that the text holds the records' lines in order, and
// besides them only pieces of lines that were broken off.
func checkLines(t *testing.T, text string, records []storage.AuditRecord) {
	t.Helper()
	want := strings.SplitAfter(lines(records), "\n")
	torn := 0
	for line := range strings.Lines(text) {
		switch {
		case line == want[0]:
			want = want[1:]
		case strings.HasPrefix(want[0], strings.TrimSuffix(line, "\n")):
			torn++
		default:
			t.Fatalf("line %q, want %q", line, want[0])
		}
	}
	if len(want) != 1 || torn > 1 {
		t.Errorf("%d lines missing, %d torn", len(want)-1, torn)
	}
}

// Retention removes what a failing sink never got: it goes on after it, and
// says how much it lost.
func TestSinkLosesWhatWasTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake(), &paper{}
		trail := open(t, f, audit.Options{Sink: p})
		synctest.Wait()
		p.set(func(p *paper) { p.err = errors.New("disk full") })
		fill(t, trail, 0, 5000)
		<-time.After(10 * time.Second)
		if _, err := trail.Trim(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		p.set(func(p *paper) { p.err = nil })
		add(t, trail, "next")
		<-time.After(5 * time.Second)
		synctest.Wait()
		s := trail.Stats().Sink
		if s.Lost == 0 || s.Lost > 5000 || s.Behind != 0 || s.Lines+s.Lost != 5003 {
			t.Errorf("stats %+v", s)
		}
		if !strings.HasSuffix(p.String(), lines(f.stored())) {
			t.Error("what is left is not in the sink")
		}
	})
}

// Storage that fails while the sink catches up is only a delay.
func TestSinkCatchesUpThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake(), &paper{gate: make(chan struct{})}
		trail := open(t, f, audit.Options{Sink: p})
		fill(t, trail, 0, 5000)
		f.set(func(f *fake) { f.away = storage.ErrUnavailable })
		close(p.gate)
		<-time.After(time.Minute)
		if err := trail.SinkHealthy(); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("SinkHealthy = %v", err)
		}
		f.set(func(f *fake) { f.away = nil })
		<-time.After(time.Minute)
		checkLines(t, p.String(), f.stored())
	})
}

// Close waits a moment for the sink, not for ever.
func TestCloseWithSink(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, p := newFake(), &paper{gate: make(chan struct{})}
			trail := open(t, f, audit.Options{Sink: p})
			fill(t, trail, 0, 100)
			time.AfterFunc(time.Second, func() { close(p.gate) })
			if err := trail.Close(t.Context()); err != nil {
				t.Errorf("Close = %v", err)
			}
			checkLines(t, p.String(), f.stored())
		})
	})
	t.Run("stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, p := newFake(), &paper{gate: make(chan struct{})}
			trail := open(t, f, audit.Options{Sink: p})
			fill(t, trail, 0, 100)
			begun := time.Now()
			err := trail.Close(t.Context())
			if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), "101 records") || took != 5*time.Second {
				t.Errorf("Close = %v after %v", err, took)
			}
			close(p.gate)
		})
	})
	t.Run("failing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, p := newFake(), &paper{err: errors.New("disk full")}
			trail := open(t, f, audit.Options{Sink: p})
			fill(t, trail, 0, 100)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := trail.Close(ctx); err == nil || !strings.Contains(err.Error(), "disk full") {
				t.Errorf("Close = %v", err)
			}
		})
	})
}

// When the trail begins another chain, the sink finishes the one before.
func TestSinkFollowsToAnotherChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake(), &paper{gate: make(chan struct{})}
		trail := open(t, f, audit.Options{Sink: p})
		add(t, trail, "1", "2")
		f.set(func(f *fake) {
			h := f.heads[trail.Writer()]
			h.Sequence = 99
			f.heads[trail.Writer()] = h
		})
		add(t, trail, "3", "4")
		close(p.gate)
		synctest.Wait()
		checkLines(t, p.String(), f.stored())
		if n := strings.Count(p.String(), "\n"); n != 6 {
			t.Errorf("%d lines", n)
		}
	})
}

func openFile(t *testing.T, path string) *audit.File {
	t.Helper()
	file, err := audit.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() }) // perhaps again
	return file
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A file that is opened again goes on after its last whole line, wherever the
// process before was killed.
func TestFileGoesOn(t *testing.T) {
	f := newFake()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	first := open(t, f, audit.Options{Sink: openFile(t, path)})
	add(t, first, "1", "2", "3")
	closeTrail(t, first)
	whole := read(t, path)
	if whole != lines(f.stored()) {
		t.Fatalf("the file holds %q", whole)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, kept := range []int{len(whole), len(whole) - 1, len(whole) - 100, strings.IndexByte(whole, '\n') + 1, 7, 0} {
		t.Run(fmt.Sprint(kept), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := os.WriteFile(path, []byte(whole[:kept]), 0o600); err != nil {
				t.Fatal(err)
			}
			// Killed once more just after it began to repeat the line.
			closing := openFile(t, path)
			if err := closing.Close(); err != nil {
				t.Fatal(err)
			}
			own := &fake{records: f.stored(), heads: map[string]storage.AuditHead{first.Writer(): f.heads[first.Writer()]}}
			trail := open(t, own, audit.Options{Sink: openFile(t, path)})
			add(t, trail, "4")
			closeTrail(t, trail)
			want := own.stored()
			if kept < 100 { // nothing says where the file ended
				want = want[4:]
			}
			got := read(t, path)
			if kept == 7 {
				_, got, _ = strings.Cut(got, "\n")
			}
			checkLines(t, got, want)
		})
	}
}

// Processes that could write to the file not once are caught up too, each in
// its turn; another broker's file is not this one's business.
func TestFileGoesOnAfterOutages(t *testing.T) {
	f := newFake()
	dir := t.TempDir()
	path, others := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "others.jsonl")
	run := func(path string, broken bool, id string) {
		file := openFile(t, path)
		if broken {
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}
		trail := open(t, f, audit.Options{Sink: file})
		add(t, trail, id)
		closeTrail(t, trail)
	}
	run(others, false, "other 1")
	run(path, false, "1")
	run(path, true, "2")
	run(others, true, "other 2")
	run(path, true, "3")
	run(path, false, "4")
	run(others, false, "other 3")
	stored := f.stored()
	checkLines(t, read(t, path), append(stored[2:6:6], stored[8:12]...))
	checkLines(t, read(t, others), append(append(stored[:2:2], stored[6:8]...), stored[12:]...))
}

// The file is renamed or removed under the broker, as log rotation does.
func TestFileIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		trail := open(t, f, audit.Options{Sink: openFile(t, path)})
		add(t, trail, "1")
		synctest.Wait()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		add(t, trail, "2")
		synctest.Wait()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		add(t, trail, "3")
		closeTrail(t, trail)
		checkLines(t, read(t, path+".1"), f.stored()[:2])
		checkLines(t, read(t, path), f.stored()[3:])
	})
}

func TestOpenFileFails(t *testing.T) {
	if _, err := audit.OpenFile(filepath.Join(t.TempDir(), "no", "such", "directory")); err == nil {
		t.Error("no error")
	}
	// A device is written to and never read.
	null := openFile(t, os.DevNull)
	if _, err := null.Write([]byte("x\n")); err != nil {
		t.Error(err)
	}
}

func TestStdoutStaysOpen(t *testing.T) {
	out := audit.Stdout()
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if _, err := out.Write(nil); err != nil {
		t.Errorf("standard output was closed: %v", err)
	}
}
