package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// observer is a watch under test.
type observer struct {
	mu       sync.Mutex
	seen     []string // writer/sequence
	position Position
	quiet    int   // news without a record
	trimmed  int64 // of all news
	held     chan struct{}
	dead     error
	ended    chan error
	end      context.CancelCauseFunc
}

var errEnded = errors.New("the test ended the watch")

func everything(storage.AuditRecord) bool { return true }

// observe begins a watch and waits until it has nothing to do.
func observe(t *testing.T, w *Watcher, r Request) *observer {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	o := &observer{ended: make(chan error, 1), end: cancel}
	r.Tell = o.tell
	r.Alive = func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.dead
	}
	if r.Wanted == nil {
		r.Wanted = everything
	}
	go func() { o.ended <- w.Follow(ctx, r) }()
	synctest.Wait()
	return o
}

func (o *observer) tell(n News) error {
	o.mu.Lock()
	held := o.held
	o.mu.Unlock()
	if held != nil {
		<-held
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.Record == nil {
		o.quiet++
	} else {
		o.seen = append(o.seen, fmt.Sprint(n.Record.Writer, "/", n.Record.Sequence))
	}
	o.trimmed += n.Trimmed
	o.position = n.Position
	return nil
}

// stop ends the watch and gives where it had come to.
func (o *observer) stop(t *testing.T) Position {
	t.Helper()
	o.end(errEnded)
	if err := <-o.ended; !errors.Is(err, errEnded) {
		t.Fatalf("the watch ended with %v", err)
	}
	return o.position
}

// pass lets a look or two go by.
func pass() {
	sleep(2 * interval)
	synctest.Wait()
}

// sleep lets time pass in a test's bubble.
func sleep(d time.Duration) { <-time.After(d) }

func TestWatchTellsWhatIsRecordedFromNowOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		trail.append("a", time.Now(), "old")
		o := observe(t, New(trail), Request{})
		if o.quiet != 1 || o.position == "" {
			t.Fatalf("it told %d times that it has begun, position %q", o.quiet, o.position)
		}
		trail.append("a", time.Now(), "new")
		trail.append("b", time.Now(), "another replica's first")
		pass()
		o.stop(t)
		if want := []string{"a/2", "b/1"}; !slices.Equal(o.seen, want) {
			t.Errorf("seen %q, want %q", o.seen, want)
		}
	})
}

func TestWatchTellsOfWhatIsWantedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		w := New(trail)
		o := observe(t, w, Request{Wanted: func(r storage.AuditRecord) bool { return r.Event == "wanted" }})
		for range 1000 {
			trail.append("a", time.Now(), "other")
		}
		trail.append("a", time.Now(), "wanted")
		trail.append("a", time.Now(), "other")
		pass()
		if want := []string{"a/1001"}; !slices.Equal(o.seen, want) {
			t.Errorf("seen %q, want %q", o.seen, want)
		}
		// The sign of life carries the position past the others.
		sleep(quiet)
		next := observe(t, w, Request{From: o.stop(t)})
		if got := next.stop(t); len(next.seen) != 0 || got == "" {
			t.Errorf("after resuming: %q", next.seen)
		}
	})
}

func TestWatchBeginsInThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		begun := time.Now()
		for i := range 100 {
			trail.append([]string{"a", "b", "c"}[i%3], begun.Add(time.Duration(i)*time.Minute), "x")
		}
		trail.append("dead", begun, "long ago")
		sleep(100 * 24 * time.Hour)
		o := observe(t, New(trail), Request{Since: begun.Add(97 * time.Minute)})
		o.stop(t)
		if want := []string{"b/33", "c/33", "a/34"}; !slices.Equal(o.seen, want) {
			t.Errorf("seen %q, want %q", o.seen, want)
		}
	})
}

// What chains share in time they are told in.
func TestWatchMergesByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		begun := time.Now()
		var want []string
		for i := range 2000 {
			writer := fmt.Sprint("w", i%7)
			r := trail.append(writer, begun.Add(time.Duration(i)*time.Millisecond), "x")
			want = append(want, fmt.Sprint(writer, "/", r.Sequence))
		}
		o := observe(t, New(trail), Request{Since: begun})
		o.stop(t)
		if !slices.Equal(o.seen, want) {
			t.Errorf("%d of %d records, in another order", len(o.seen), len(want))
		}
	})
}

func TestWatchSaysThatItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, New(newTrail()), Request{})
		sleep(10*quiet + interval)
		o.stop(t)
		if o.quiet < 10 || o.quiet > 12 {
			t.Errorf("%d signs of life in %v", o.quiet, 10*quiet)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	t.Run("when it may not go on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := observe(t, New(newTrail()), Request{})
			o.mu.Lock()
			o.dead = errors.New("revoked")
			o.mu.Unlock()
			pass()
			if err := <-o.ended; err == nil || err.Error() != "revoked" {
				t.Errorf("it ended with %v", err)
			}
		})
	})
	t.Run("when the trail fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			trail := newTrail()
			o := observe(t, New(trail), Request{})
			trail.fail(storage.ErrUnavailable)
			pass()
			if err := <-o.ended; !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("it ended with %v", err)
			}
		})
	})
	t.Run("when nobody listens", func(t *testing.T) {
		gone := errors.New("gone")
		err := New(newTrail()).Follow(t.Context(), Request{
			Wanted: everything, Alive: func() error { return nil }, Tell: func(News) error { return gone },
		})
		if !errors.Is(err, gone) {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("in the middle of a long past", func(t *testing.T) {
		trail := newTrail()
		for range 5_000 {
			trail.append("a", time.Now(), "x")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		told := 0
		err := New(trail).Follow(ctx, Request{
			Since: time.Now().Add(-time.Hour), Wanted: everything, Alive: func() error { return nil },
			Tell: func(News) error {
				if told++; told == 1000 {
					cancel(errEnded)
				}
				if told > 1000 {
					return errors.New("it does not end")
				}
				return nil
			},
		})
		if !errors.Is(err, errEnded) && !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// One that does not read keeps nobody else waiting, nor anything in memory.
func TestWatchThatIsStuckDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		w := New(trail)
		stuck, quick := observe(t, w, Request{}), observe(t, w, Request{})
		stuck.mu.Lock()
		stuck.held = make(chan struct{})
		stuck.mu.Unlock()
		for i := range 3 {
			trail.append("a", time.Now(), "x")
			pass()
			if len(quick.seen) != i+1 {
				t.Fatalf("the other watch has seen %q", quick.seen)
			}
		}
		if len(stuck.seen) != 0 {
			t.Errorf("the stuck watch has seen %q", stuck.seen)
		}
		close(stuck.held)
		pass()
		quick.stop(t)
		stuck.stop(t)
		if !slices.Equal(stuck.seen, quick.seen) {
			t.Errorf("seen %q and %q", stuck.seen, quick.seen)
		}
	})
}

func TestManyWatchesReadTheHeadsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		w := New(trail)
		var all []*observer
		for range 50 {
			all = append(all, observe(t, w, Request{}))
		}
		before := trail.looks()
		sleep(60 * interval)
		synctest.Wait()
		if read := trail.looks() - before; read > 120 {
			t.Errorf("%d watches read the heads %d times in a minute", len(all), read)
		}
		for _, o := range all {
			o.stop(t)
		}
	})
}

func TestWatchReportsWhatRetentionRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		w := New(trail)
		trail.append("a", time.Now(), "x")
		trail.append("gone", time.Now(), "x")
		o := observe(t, w, Request{})
		at := o.stop(t)
		for range 10 {
			trail.append("a", time.Now(), "x")
			trail.append("gone", time.Now(), "x")
		}
		trail.trim("a", 8)
		trail.trim("gone", 12)
		o = observe(t, w, Request{From: at})
		o.stop(t)
		if o.trimmed != 6+10 || !slices.Equal(o.seen, []string{"a/8", "a/9", "a/10", "a/11"}) {
			t.Errorf("%d trimmed, seen %q", o.trimmed, o.seen)
		}
	})
}

// However a watch is broken off and gone on with, each record is told once and
// a writer's are told in order: with replicas that start and end, clocks that
// differ, records that become visible late, and long pauses.
func TestResumedWatchesMissNothingAndRepeatNothing(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { resume(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func resume(t *testing.T, random *rand.Rand) {
	trail := newTrail()
	skew := map[string]time.Duration{}
	var live []string
	write := func() {
		if len(live) == 0 || random.IntN(20) == 0 {
			writer := fmt.Sprintf("writer-%d", len(skew))
			skew[writer] = time.Duration(random.Int64N(int64(10*time.Minute))) - 5*time.Minute
			live = append(live, writer)
		}
		if len(live) > 4 {
			live = live[1:]
		}
		writer := live[random.IntN(len(live))]
		trail.append(writer, time.Now().Add(skew[writer]).Add(-time.Duration(random.Int64N(int64(100*time.Millisecond)))), "x")
	}
	for range random.IntN(50) {
		write()
		sleep(time.Duration(random.Int64N(int64(time.Hour))))
	}
	before := map[string]int{}
	for writer, chain := range trail.chains {
		before[writer] = len(chain)
	}
	var seen []string
	var at Position
	for range 40 {
		// Each watch is on another replica, which knows nothing of the last.
		o := observe(t, New(trail), Request{From: at})
		for range random.IntN(30) {
			write()
			if random.IntN(3) == 0 {
				sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
			}
		}
		if random.IntN(2) == 0 {
			pass()
		}
		at = o.stop(t)
		seen = append(seen, o.seen...)
		for range random.IntN(20) {
			write()
		}
		sleep(time.Duration(random.Int64N(int64(2 * time.Hour))))
		if len(at) > 2000 {
			t.Errorf("a position of %d bytes", len(at))
		}
	}
	o := observe(t, New(trail), Request{From: at})
	o.stop(t)
	seen = append(seen, o.seen...)
	told := map[string][]string{}
	for _, s := range seen {
		writer, _, _ := strings.Cut(s, "/")
		told[writer] = append(told[writer], s)
	}
	for writer, chain := range trail.chains {
		var want []string
		for i := before[writer]; i < len(chain); i++ {
			want = append(want, fmt.Sprint(writer, "/", i+1))
		}
		if !slices.Equal(told[writer], want) {
			t.Errorf("of %s: told %q, want %q", writer, told[writer], want)
		}
	}
}

// A crash loop makes many writers; a position stays small all the same.
func TestPositionsStaySmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		for i := range 1000 {
			trail.append(fmt.Sprintf("0198c0de-0000-7000-8000-%012d", i), time.Now(), "x")
			sleep(time.Millisecond)
		}
		o := observe(t, New(trail), Request{})
		trail.append("new", time.Now(), "x")
		pass()
		at := o.stop(t)
		if len(at) > 6000 {
			t.Errorf("a position of %d bytes", len(at))
		}
		trail.append("new", time.Now(), "x")
		next := observe(t, New(trail), Request{From: at})
		next.stop(t)
		if want := []string{"new/2"}; !slices.Equal(next.seen, want) {
			t.Errorf("seen %q, want %q", next.seen, want)
		}
	})
}

func TestDamagedPositionsAreRefused(t *testing.T) {
	whole := bookmark{floor: time.UnixMicro(1), next: map[string]int64{"a": 1, "b": 2}}.position()
	for _, damaged := range []Position{"x", whole[:len(whole)-1], whole + "x", "\x02" + whole[1:], "\x01"} {
		err := New(newTrail()).Follow(t.Context(), Request{From: damaged, Wanted: everything})
		if !errors.Is(err, errPosition) {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

func FuzzPosition(f *testing.F) {
	f.Add(string(bookmark{floor: time.UnixMicro(1), next: map[string]int64{"a": 1, "b": 2}}.position()))
	f.Add("\x01\x02")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Position(s).open()
		if err != nil {
			return
		}
		again, err := b.position().open()
		if err != nil || !again.floor.Equal(b.floor) || len(again.next) != len(b.next) {
			t.Errorf("%+v became %+v: %v", b, again, err)
		}
	})
}
