package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/authn"
)

// The lists agree with a plain model under random additions and removals.
func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	x := newIndex()
	model := map[*Stream]bool{}
	for range 5000 {
		if len(model) > 0 && r.IntN(2) == 0 {
			for s := range model {
				x.remove(s)
				delete(model, s)
				break
			}
		} else {
			s := &Stream{principal: &authn.Principal{TenantID: fmt.Sprint(r.IntN(3)), AgentID: fmt.Sprint(r.IntN(40)), UserID: "u"}}
			if r.IntN(2) == 0 {
				s.principal.SessionID = fmt.Sprint(r.IntN(5))
			}
			x.add(s)
			model[s] = true
		}
	}
	for rel := range relations {
		found := 0
		for key := range x.heads[rel] {
			for s := range x.all(rel, key) {
				found++
				if !model[s] || s.key(rel) != key {
					t.Fatalf("%v lists a stream that does not belong there", rel)
				}
			}
		}
		want := 0
		for s := range model {
			if s.key(rel) != "" {
				want++
			}
		}
		if found != want {
			t.Errorf("relation %d has %d streams, want %d", rel, found, want)
		}
	}
	for s := range model {
		x.remove(s)
	}
	for rel := range relations {
		if len(x.heads[rel]) != 0 {
			t.Errorf("relation %d keeps %d keys without streams", rel, len(x.heads[rel]))
		}
	}
}

// The heap agrees with a plain model under random settings and droppings.
func TestTimers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	tm := timers{earlier: make(chan struct{}, 1)}
	streams := make([]*Stream, 100)
	for i := range streams {
		streams[i] = &Stream{place: notScheduled}
	}
	model := map[*Stream]time.Duration{}
	now := time.Duration(0)
	for range 20000 {
		s := streams[r.IntN(len(streams))]
		switch r.IntN(4) {
		case 0, 1:
			at := now + time.Duration(r.IntN(1000))
			tm.set(s, at)
			model[s] = at
		case 2:
			tm.drop(s)
			delete(model, s)
		case 3:
			now += time.Duration(r.IntN(20))
			for {
				due, next, ok := tm.due(now)
				if due == nil {
					if ok != (len(model) > 0) || ok && next <= now {
						t.Fatalf("next is %d at %d, %d are set", next, now, len(model))
					}
					break
				}
				if model[due] > now {
					t.Fatalf("woken at %d instead of %d", now, model[due])
				}
				delete(model, due)
			}
			for _, at := range model {
				if at <= now {
					t.Fatal("one was not woken")
				}
			}
		}
	}
	if len(tm.heap) != len(model) {
		t.Errorf("%d in the heap, want %d", len(tm.heap), len(model))
	}
}

func TestTimersStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tm := timers{earlier: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tm.run(ctx, func() time.Duration { return 0 }, func(*Stream) {})
	}()
	cancel()
	<-done
}

// However the streams are numbered, no gap between their heartbeats is much
// wider than it would be if they were dealt out by hand.
func TestHeartbeatsAreSpread(t *testing.T) {
	r := &Registry{Config: Config{Heartbeat: 30 * time.Second}}
	for _, n := range []int{1, 2, 10, 1000, 10007} {
		var phases []time.Duration
		for i := range n {
			phases = append(phases, r.phaseOf(int64(i+1_000_000_000)))
		}
		slices.Sort(phases)
		widest := phases[0] + r.Heartbeat - phases[n-1]
		for i := 1; i < n; i++ {
			widest = max(widest, phases[i]-phases[i-1])
		}
		if limit := 3 * r.Heartbeat / time.Duration(n); widest > limit {
			t.Errorf("%d streams: a gap of %s, want at most %s", n, widest, limit)
		}
	}
}

func TestBeatAfter(t *testing.T) {
	r := &Registry{Config: Config{Heartbeat: 30}}
	for _, test := range []struct{ now, phase, want time.Duration }{
		{0, 0, 30}, {0, 5, 5}, {4, 5, 5}, {5, 5, 35}, {34, 5, 35}, {35, 5, 65}, {1000, 7, 1027},
	} {
		if got := r.beatAfter(test.now, test.phase); got != test.want {
			t.Errorf("after %d with phase %d: %d, want %d", test.now, test.phase, got, test.want)
		}
	}
}
