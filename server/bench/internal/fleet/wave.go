package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Kind is what a wave waits for.
type Kind int

// The kinds of event.
const (
	// Welcomed: a stream's first message came.
	Welcomed Kind = iota
	// Supplied: a credential came.
	Supplied
	// Warned: a problem came.
	Warned
	// Ended: the broker ended the call.
	Ended
)

// Wave is one event that is to reach every agent.
type Wave struct {
	kind Kind
	// own: times count from the agent's own beginning to connect, not from the
	// wave's.
	own   bool
	began time.Time
	left  atomic.Int64
	took  []atomic.Int64 // in nanoseconds by agent; 0: not yet
	done  chan struct{}
}

// Expect begins a wave, in place of the one before. own makes times count from
// when each agent began to connect.
func (f *Fleet) Expect(kind Kind, own bool) *Wave {
	w := &Wave{kind: kind, own: own, began: time.Now(), took: make([]atomic.Int64, len(f.agents)), done: make(chan struct{})}
	w.left.Store(int64(len(f.agents)))
	f.wave.Store(w)
	return w
}

// hit notes an event of an agent; the first counts.
func (f *Fleet) hit(kind Kind, index int, connecting, now time.Time) {
	w := f.wave.Load()
	if w == nil || w.kind != kind {
		return
	}
	since := w.began
	if w.own {
		since = connecting
	}
	if !w.took[index].CompareAndSwap(0, max(1, int64(now.Sub(since)))) {
		return
	}
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}

// Wait waits until the wave has reached every agent.
func (w *Wave) Wait(ctx context.Context) error {
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d of %d agents were not reached: %w", w.left.Load(), len(w.took), ctx.Err())
	}
}

// Spread is how long it took to reach the agents.
type Spread struct {
	P50, P99, Last time.Duration
}

// Spread gives the times of those who were reached.
func (w *Wave) Spread() Spread {
	times := make([]time.Duration, 0, len(w.took))
	for i := range w.took {
		if t := w.took[i].Load(); t > 0 {
			times = append(times, time.Duration(t))
		}
	}
	return SpreadOf(times)
}

// SpreadOf sorts the times and gives their spread.
func SpreadOf(times []time.Duration) Spread {
	if len(times) == 0 {
		return Spread{}
	}
	slices.Sort(times)
	at := func(q float64) time.Duration { return times[min(len(times)-1, int(q*float64(len(times))))] }
	return Spread{P50: at(.5), P99: at(.99), Last: times[len(times)-1]}
}
