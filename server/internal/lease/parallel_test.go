package lease

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Everything at once, from many goroutines, with leases that end as soon as
// they are left: for the race detector, for deadlocks, and for what is left.
func TestEverythingAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 300 * time.Microsecond })
		var all sync.WaitGroup
		for worker := range 12 {
			all.Go(func() { w.churn(worker, 150) })
		}
		all.Go(func() {
			for range 60 {
				w.authority.deny("agent:a1", reason.New(reason.AgentDisabled, "disabled"))
				w.change(storage.KindAgent, "a1")
				w.m.Stats()
				w.authority.deny("agent:a1", nil)
				w.change(storage.KindAgent, "a1")
				w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash += "+" })
				w.change(storage.KindGrant, "g1")
				for range w.m.Leases() {
				}
				pass(time.Millisecond)
				w.m.Recheck()
			}
		})
		all.Wait()
		after(time.Minute)
		w.m.mu.RLock()
		for kind := range w.m.index {
			if n := len(w.m.index[kind]); n != 0 {
				t.Errorf("%d keys are left in index %d", n, kind)
			}
		}
		w.m.mu.RUnlock()
		s := w.m.Stats()
		if s.Leases != 0 || w.m.timers.len() != 0 || s.Accounts[0].Due != 0 || s.Accounts[0].Waiting != 0 || s.Accounts[0].InFlight != 0 {
			t.Errorf("something is left: %+v", s)
		}
	}, quietly, withRate(100_000), func(_ *world, c *Config) { c.Linger = time.Microsecond })
}

// churn does n things.
func (w *world) churn(worker, n int) {
	random := rand.New(rand.NewPCG(uint64(worker), 1))
	for range n {
		h := holder(random.IntN(3))
		var held *Held
		if random.IntN(2) == 0 {
			w.trail.mu.Lock()
			if n := len(w.trail.records); n > 0 {
				held = &Held{ID: w.trail.records[random.IntN(n)].CredentialID, Expires: time.Now().Add(hour)}
			}
			w.trail.mu.Unlock()
		}
		a := w.subscribeAs(worker, h, "g1", held)
		switch random.IntN(4) {
		case 0:
			pass(time.Duration(random.IntN(1000)) * time.Microsecond)
		case 1:
			_ = a.sub.Refused(a.sub.Supply().CredentialID, "")
		case 2:
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(1000))*time.Microsecond)
			_, _ = w.m.Credential(ctx, h, "g1", time.Duration(random.IntN(2))*time.Minute)
			cancel()
		}
		a.sub.Acknowledge(a.sub.Supply().CredentialID)
		a.sub.Close()
	}
}

// A subscription that found a lease which ends at that moment gets a new one.
func TestSubscribeToEndingLease(t *testing.T) {
	w := newWorld(t)
	first := w.subscribe(1)
	first.sub.Close()
	old := first.sub.lease
	old.mu.Lock()
	second := make(chan *agent)
	go func() { second <- w.subscribe(1) }()
	for found := false; !found; runtime.Gosched() {
		w.m.mu.RLock()
		found = len(w.m.index[byAgent]["a1"]) == 1
		w.m.mu.RUnlock()
	}
	w.m.end(old)
	old.mu.Unlock()
	a := <-second
	if a.sub.lease == old || w.m.Stats().Leases != 1 || len(w.m.index[byAgent]["a1"]) != 1 {
		t.Errorf("it has the lease that ended, or is filed wrongly")
	}
	a.sub.Close()
}
