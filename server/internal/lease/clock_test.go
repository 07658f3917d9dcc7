package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

// The wall clock moves forward by an hour, as after a suspend or when it is set
// wrong: every lease is renewed once, at the account's pace, earliest expiry
// first, nobody is without a credential, and the broker goes on as before.
func TestClockStepsForward(t *testing.T) {
	for _, d := range []time.Duration{40 * time.Minute, hour, 5 * hour} {
		t.Run(d.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.sts.wall = w.wall
				const agents, perSecond = 100, 10
				all := make([]*agent, agents)
				for i := range all {
					all[i] = w.subscribe(i)
				}
				after(20 * time.Minute)
				calls := w.sts.count()
				w.step(d)
				after(tick + agents/perSecond*time.Second + time.Second)
				if n := w.sts.count() - calls; n != agents {
					t.Errorf("%d calls after the step, want one for each of %d leases", n, agents)
				}
				checkBudget(t, w.sts.made(), perSecond)
				after(25 * time.Minute)
				// An hour and more cannot be a shorter grant of STS, so the
				// new credentials count as new. 40 minutes can: then they are
				// renewed sooner, every 10 to 13 minutes.
				most := agents
				if d < hour {
					most = 4 * agents
				}
				if n := w.sts.count() - calls; n > most {
					t.Errorf("%d calls, want at most %d: the new credentials count as old", n, most)
				}
				after(5 * hour)
				for _, a := range all {
					a.checkAlwaysSupplied(t)
				}
			}, withRate(10), quietly)
		})
	}
}

// The wall clock moves back: no lease is lost, none is renewed early or late,
// and issue times still grow, which every agent checks.
func TestClockStepsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.wall = w.wall
		all := make([]*agent, 50)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(20 * time.Minute)
		calls := w.sts.count()
		w.step(-hour)
		after(9 * time.Minute)
		if n := w.sts.count() - calls; n != 0 {
			t.Errorf("%d calls because the clock moved back", n)
		}
		after(5 * hour)
		for _, a := range all {
			a.checkAlwaysSupplied(t)
			// With the clock wrong STS's expiry says less; the duration is
			// what counts.
			if n := len(a.credentials()); n > 14 {
				t.Errorf("agent %d got %d credentials in five hours", a.n, n)
			}
		}
	}, quietly)
}

// checkAlwaysSupplied fails if the agent had less than a third of a lifetime
// left at any time, going by STS's clock, which is true time here.
func (a *agent) checkAlwaysSupplied(t *testing.T) {
	t.Helper()
	got := a.credentials()
	for i := 1; i < len(got); i++ {
		if left := got[i-1].Credential.Expires.Sub(got[i].at); left < hour/3 {
			t.Fatalf("agent %d had only %s left:%s", a.n, left, a.story())
		}
	}
	if left := time.Until(got[len(got)-1].Credential.Expires); left < hour/3 {
		t.Fatalf("agent %d has only %s left", a.n, left)
	}
}

// Back and forth a hundred times: each step forward costs at most one renewal,
// at the account's pace.
func TestClockSwings(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.wall = w.wall
		const agents = 20
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(time.Minute)
		for range 100 {
			w.step(hour)
			after(time.Minute)
			w.step(-hour)
			after(time.Minute)
		}
		checkBudget(t, w.sts.made(), 10)
		if n := w.sts.count(); n > 102*agents {
			t.Errorf("%d calls", n)
		}
		for _, a := range all {
			a.checkAlwaysSupplied(t)
		}
	}, withRate(10), quietly)
}

// A clock that is wrong from the beginning does no harm.
func TestClockIsAlwaysWrong(t *testing.T) {
	for _, d := range []time.Duration{-24 * hour, -50 * time.Minute, 50 * time.Minute, 24 * hour} {
		t.Run(d.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.sts.wall = w.wall
				w.step(d)
				h := holder(1)
				h.Certificate.NotAfter = time.Now().Add(1000 * hour)
				a := w.subscribeAs(1, h, "g1", nil)
				after(5 * hour)
				a.checkAlwaysSupplied(t)
				if n := len(a.credentials()); n > 12 {
					t.Errorf("%d credentials in five hours", n)
				}
			}, quietly)
		})
	}
}

// Issue times grow even where a lease ended in between, which the stream does
// not notice, and the clock stepped back.
func TestIssueTimesGrowAcrossLeases(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.wall = w.wall
		a := w.subscribe(1)
		after(time.Second)
		a.sub.Close()
		w.step(-hour)
		after(10 * time.Minute)
		if n := w.m.Stats().Leases; n != 0 {
			t.Fatalf("%d leases: nothing is proved", n)
		}
		a.sub = w.m.Subscribe(holder(1), "g1", nil, a) // a checks the order
		after(time.Second)
		a.want(2, 0, 0)
	}, quietly)
}

func TestClockObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t) // its manager does not run: that would observe, too
		c := &w.m.clock
		for _, step := range []struct{ by, moved time.Duration }{
			{time.Second, 0}, {-time.Second, 0}, {3 * time.Second, 3 * time.Second}, {-time.Minute, -time.Minute}, {time.Minute, time.Minute},
		} {
			before := c.now()
			w.step(step.by)
			if got := c.observe(w.m.cfg.Log); got != step.moved {
				t.Errorf("a step of %s was seen as %s", step.by, got)
			}
			if got := c.now().since(before); got != max(0, step.moved) {
				t.Errorf("a step of %s moved the timeline by %s", step.by, got)
			}
		}
		if got := c.wallAt(c.now().add(time.Minute)); !got.Equal(w.wall().Add(time.Minute)) {
			t.Errorf("in a minute it will be %s", got)
		}
	})
}
