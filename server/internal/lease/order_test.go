package lease

import (
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Calls in flight are bounded, and a new agent's first credential goes ahead
// of early renewals.
func TestFirstCredentialBeforeEarlyRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for i := range 100 {
			w.subscribe(i)
		}
		after(time.Minute)
		// At two calls of twenty seconds at once, renewals pile up.
		w.sts.set(func(s *fakeSTS) { s.latency, s.most = 20*time.Second, 0 })
		after(35 * time.Minute)
		if due := w.m.Stats().Accounts[0].Due; due < 10 {
			t.Fatalf("only %d leases are due: nothing is proved", due)
		}
		late := w.subscribe(1000)
		after(41 * time.Second)
		late.want(1, 0, 0)
		if w.sts.most != 2 {
			t.Errorf("%d calls were in flight at once, want 2", w.sts.most)
		}
	}, withMaxCalls(2), abruptly)
}

// Other terms go ahead of early renewals, too.
func TestChangeBeforeEarlyRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribeAs(1000, holder(1000), "g2", nil)
		after(25 * time.Minute)
		for i := range 100 {
			w.subscribe(i)
		}
		after(20 * time.Minute)
		a.want(2, 0, 0)
		w.sts.set(func(s *fakeSTS) { s.latency = 20 * time.Second })
		after(15 * time.Minute)
		if due := w.m.Stats().Accounts[0].Due; due < 10 {
			t.Fatalf("only %d leases are due: nothing is proved", due)
		}
		w.authority.alter("g2", func(e *Entitlement) { e.PolicyHash = "new" })
		w.change(storage.KindGrant, "g2")
		after(41 * time.Second)
		a.want(3, 0, 0)
	}, withMaxCalls(2), abruptly)
}

// A due lease whose location moves to another account leaves the queue of the
// old one.
func TestQueuedLeaseMovesToAnotherAccount(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = hour })
		w.subscribeAs(1, holder(1), "g2", nil)
		after(time.Second)
		a := w.subscribe(2)
		after(time.Second)
		a.want(0, 0, 0)
		w.authority.alter("g1", func(e *Entitlement) { e.Account = "other" })
		w.change(storage.KindGrant, "g1")
		after(time.Second)
		a.want(1, 0, 0)
		for _, s := range w.m.Stats().Accounts {
			if s.Due != 0 {
				t.Errorf("%d leases are due in account %s", s.Due, s.Name)
			}
		}
	}, withMaxCalls(1), withAccount("other", newSTS()), abruptly, quietly)
}

// Every lease is told when the queue is too slow for it.
func TestQueueTooSlow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Second)
		w.sts.set(func(s *fakeSTS) { s.latency = 90 * time.Second })
		for i := range 60 {
			w.subscribe(100 + i)
		}
		after(hour)
		got := a.problems()
		if len(got) == 0 {
			t.Fatalf("nothing was told of the expiry:%s", a.story())
		}
		wantReason(t, got[0].Problem.Err, reason.STSThrottled)
		if !got[0].Problem.GoodUntil.Equal(a.credentials()[0].Credential.Expires) {
			t.Errorf("told %+v", got[0].Problem)
		}
	}, withMaxCalls(1), quietly, abruptly)
}

// STS hangs across the expiry: that is told, and the answer still counts.
func TestExpiryDuringCall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.addGrant("g3", "main", 15*time.Minute)
		a := w.subscribeAs(1, holder(1), "g3", nil)
		after(time.Second)
		w.sts.set(func(s *fakeSTS) { s.latency = 9 * time.Minute })
		after(20 * time.Minute)
		a.want(2, 1, 0)
		wantReason(t, a.problems()[0].Problem.Err, reason.STSUnavailable)
	}, abruptly, func(_ *world, c *Config) { c.CallTimeout = hour })
}

// The call's own bound ends a call that hangs.
func TestHangingCallIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 24 * hour })
		a := w.subscribe(1)
		after(119 * time.Second)
		a.want(0, 0, 0)
		w.sts.set(func(s *fakeSTS) { s.latency = 0 })
		after(3 * time.Second)
		a.want(1, 1, 0)
	}, quietly)
}
