package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// shortestWindow is what a departure takes at least: time to send a farewell.
const shortestWindow = time.Second

// Drain asks every agent to reconnect, each after its own delay, evenly spread
// over the window, and ends the streams as soon as they have been told. Those
// that cannot be told within the window end with DRAINING, and so does every
// stream that would be opened from now on. See Wait. Draining again changes
// nothing.
func (r *Registry) Drain(window time.Duration) {
	window = max(window, shortestWindow)
	r.mu.Lock()
	drains := r.window.CompareAndSwap(0, int64(window))
	r.mu.Unlock()
	if !drains {
		return
	}
	all := r.everyone()
	for i, place := range rand.Perm(len(all)) {
		part := (float64(place) + chance()) / float64(len(all))
		all[i].depart(time.Duration(part*float64(window)), window)
	}
}

// depart sends the agent away.
func (s *Stream) depart(delay, window time.Duration) {
	s.mu.Lock()
	subscribed := s.subscribed
	if subscribed && !s.ended {
		now := s.registry.clock()
		s.outbox.reconnect = &Reconnect{Delay: delay.Round(time.Millisecond)}
		s.leaveBy = now + window
		s.schedule(now)
		s.start()
	}
	s.mu.Unlock()
	if !subscribed {
		s.end(s.registry.errDraining())
	}
}

// errDraining tells an agent when to come back: all at different times.
func (r *Registry) errDraining() *reason.Error {
	delay := time.Duration(chance() * float64(r.window.Load()))
	return reason.New(reason.Draining, "the broker is shutting down; reconnect").After(max(delay.Round(time.Millisecond), time.Millisecond))
}

// chance is a number from 0 to 1.
func chance() float64 { return rand.Float64() }

// Wait returns when no stream is open, or with an error when ctx ends.
func (r *Registry) Wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		open := r.open
		if open > 0 && r.empty == nil {
			r.empty = make(chan struct{})
		}
		empty := r.empty
		r.mu.Unlock()
		if open == 0 {
			return nil
		}
		select {
		case <-empty:
		case <-ctx.Done():
			return fmt.Errorf("%d streams are still open: %w", open, context.Cause(ctx))
		}
	}
}
