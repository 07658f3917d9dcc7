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
		all := make([]*agent, 60)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(time.Second)
		// One call after the other: an hour and a half for all.
		w.sts.set(func(s *fakeSTS) { s.latency = 90 * time.Second })
		after(hour + time.Minute)
		told := map[reason.Reason]int{}
		for _, a := range all {
			if len(a.credentials()) > 1 {
				continue
			}
			got := a.problems()
			if len(got) == 0 {
				t.Fatalf("nothing was told of the expiry:%s", a.story())
			}
			told[reason.Of(got[0].Problem.Err)]++
			if !got[0].Problem.GoodUntil.Equal(a.credentials()[0].Credential.Expires) {
				t.Errorf("told %+v", got[0].Problem)
			}
		}
		// For one the call is in flight.
		if told[reason.STSThrottled] < 20 || told[reason.STSUnavailable] > 1 || len(told) > 2 {
			t.Errorf("those in the queue were told %v", told)
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

// Whoever is about to run dry is renewed before those who have run dry
// already, and those before whoever has time. The dry are not forgotten
// meanwhile.
func TestWhoCanBeSavedComesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		// One expiry every two seconds, over an hour less what is too early.
		const agents = 900
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
			pass(2 * time.Second)
		}
		w.sts.failing(errDown)
		after(45 * time.Minute) // The first half has run dry.
		ends, began := map[string]time.Time{}, time.Now()
		for i, a := range all {
			ends[holder(i).AgentID] = a.credential().Expires
		}
		fresh := w.subscribe(agents)
		made := w.sts.count()
		w.sts.failing(nil)
		after(30 * time.Minute)

		// All the others are in danger at first, and one call in ten is for
		// the dry.
		dry, saved, lost := 0, 0, 0
		for _, c := range w.sts.made()[made:][:400] {
			if end := ends[c.request.Tags[2].Value]; end.Before(began) {
				dry++
			}
		}
		if dry < 400/dryShare-2 || dry > 400/dryShare+10 {
			t.Errorf("of 400 calls %d were for those who have run dry", dry)
		}
		for i, a := range all {
			end := ends[holder(i).AgentID]
			switch {
			case end.Before(began.Add(2 * lastProbe)): // Too late for the first probe.
			case len(a.credentials()) > 1 && a.credentials()[1].at.Before(end):
				saved++
			default:
				lost++
			}
		}
		if lost > 0 || saved < agents/4 {
			t.Errorf("%d were saved, and %d lost for whom there was time", saved, lost)
		}
		if len(fresh.credentials()) == 0 {
			t.Error("a new agent waits for ever")
		}
	}, withRate(0.7), quietly)
}
