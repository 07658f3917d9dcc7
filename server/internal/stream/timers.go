package stream

import (
	"context"
	"sync"
	"time"
)

// timers wakes streams: one heap and one goroutine for all of them, since a
// timer or goroutine each would cost more than the rest of an idle stream. A
// stream has one place in the heap, for whatever it has to do next.
//
// Moments are counted from the registry's start by the monotonic clock, so that
// setting the computer's clock neither hurries nor holds up anything.
type timers struct {
	mu   sync.Mutex
	heap []alarm
	// earlier tells run that the first alarm moved forward; its one place
	// coalesces.
	earlier chan struct{}
}

type alarm struct {
	at time.Duration
	s  *Stream
}

// notScheduled is the place of a stream that is not in the heap.
const notScheduled = -1

// set wakes the stream at the moment, instead of at the one set before.
func (t *timers) set(s *Stream, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.place == notScheduled {
		s.place = len(t.heap)
		t.heap = append(t.heap, alarm{at, s})
		t.up(s.place)
	} else {
		place := s.place
		t.heap[place].at = at
		t.down(place)
		t.up(s.place)
	}
	if s.place == 0 {
		select {
		case t.earlier <- struct{}{}:
		default:
		}
	}
}

// drop forgets the stream.
func (t *timers) drop(s *Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.place != notScheduled {
		t.remove(s.place)
	}
}

// due takes out a stream whose moment has come. If there is none, it tells when
// the next one's comes; ok is false if nothing is set.
func (t *timers) due(now time.Duration) (s *Stream, next time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.heap) == 0 {
		return nil, 0, false
	}
	first := t.heap[0]
	if first.at > now {
		return nil, first.at, true
	}
	t.remove(0)
	return first.s, 0, true
}

// run calls wake for each stream whose moment has come, until ctx ends.
func (t *timers) run(ctx context.Context, now func() time.Duration, wake func(*Stream)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, next, ok := t.due(now())
		if s != nil {
			if ctx.Err() != nil {
				return
			}
			wake(s)
			continue
		}
		if ok {
			timer.Reset(next - now())
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.earlier:
		}
	}
}

// remove takes out what is at the place.
func (t *timers) remove(place int) {
	last := len(t.heap) - 1
	t.heap[place].s.place = notScheduled
	if place != last {
		t.put(place, t.heap[last])
	}
	t.heap[last] = alarm{}
	t.heap = t.heap[:last]
	if place != last {
		moved := t.heap[place].s
		t.down(place)
		t.up(moved.place)
	}
}

func (t *timers) put(place int, a alarm) {
	t.heap[place] = a
	a.s.place = place
}

func (t *timers) swap(i, j int) {
	a, b := t.heap[i], t.heap[j]
	t.put(i, b)
	t.put(j, a)
}

func (t *timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t.heap[parent].at <= t.heap[i].at {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t *timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.heap[child+1].at < t.heap[child].at {
			child++
		}
		if t.heap[i].at <= t.heap[child].at {
			return
		}
		t.swap(i, child)
		i = child
	}
}
