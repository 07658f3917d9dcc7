package lease

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
)

// STS is away for longer than a lifetime. Everybody keeps the last good
// credential until it expires, is told at the beginning and at the end of it,
// and STS is asked little. Once it is back, who ran dry first is served first.
func TestOutageLongerThanALifetime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents = 300
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
			pass(time.Second)
		}
		after(time.Minute)
		w.sts.failing(errDown)
		before := w.sts.count()
		after(90 * time.Minute)
		// A probe every five seconds, or somewhat more, however many lease.
		if n := w.sts.count() - before; n > 90*60/3 {
			t.Errorf("%d calls to an STS that is away for 90 minutes", n)
		}
		ends := map[string]time.Time{}
		for i, a := range all {
			a.checkOutage()
			ends[holder(i).AgentID] = a.credential().Expires
		}
		if s := w.m.Stats(); s.Dry != agents || !s.Accounts[0].Down || s.Emptiest > 0 {
			t.Errorf("the state is %+v", s)
		}
		recovery := w.sts.count()
		w.sts.failing(nil)
		after(time.Minute)
		for _, a := range all {
			a.want(2, len(a.problems()), 0)
		}
		// The probe that finds STS back is the most urgent of those that have
		// no wait of their own; from then on the order is strict.
		checkOrder(t, w.sts.made()[recovery+1:], ends)
		if took := w.sts.made()[len(w.sts.made())-1].at.Sub(w.sts.made()[recovery].at); took > agents/50*time.Second+time.Second {
			t.Errorf("recovery took %s", took)
		}
	}, withRate(50), quietly)
}

// Those who wait in the queue of an account that is down are told, though no
// call was made for them.
func TestOutageIsToldToTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.failing(errDown)
		all := make([]*agent, 100)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(5 * time.Second)
		for _, a := range all {
			if len(a.problems()) != 1 {
				t.Fatalf("agent %d was told:%s", a.n, a.story())
			}
			wantReason(t, a.problems()[0].Problem.Err, reason.STSUnavailable)
		}
		if n := w.sts.count(); n > 20 {
			t.Errorf("%d calls", n)
		}
	}, withRate(2), quietly)
}

// checkOrder fails if a call was made for a lease while one whose credential
// ended earlier had to wait.
func checkOrder(t *testing.T, calls []call, ends map[string]time.Time) {
	t.Helper()
	var latest time.Time // of the calls of earlier instants
	for i := 0; i < len(calls); {
		at, highest := calls[i].at, latest
		for ; i < len(calls) && calls[i].at.Equal(at); i++ {
			end := ends[calls[i].request.Tags[2].Value]
			if end.Before(latest) {
				t.Fatalf("call %d was for a credential that ended at %s, after one that ended at %s", i, end, latest)
			}
			if end.After(highest) {
				highest = end
			}
		}
		latest = highest
	}
}

// checkOutage checks what one agent was told of an outage.
func (a *agent) checkOutage() {
	a.t.Helper()
	problems, end := a.problems(), a.credential().Expires
	if len(problems) == 0 {
		a.t.Fatalf("agent %d was not told of the outage", a.n)
	}
	first := problems[0]
	if first.at.After(end.Add(-hour / 3)) {
		a.t.Errorf("agent %d was told only at %s, with an end at %s", a.n, first.at, end)
	}
	expired := 0
	for i, p := range problems {
		wantReason(a.t, p.Problem.Err, reason.STSUnavailable)
		if p.Problem.RetryAt.IsZero() || !p.Problem.GoodUntil.Equal(end) {
			a.t.Errorf("agent %d was told %+v", a.n, p.Problem)
		}
		if !p.at.Before(end) && p.at.Sub(end) < 10*time.Millisecond {
			expired++
		}
		if i > 0 && p.at.Sub(problems[i-1].at) < repeatAfter && p.at.Sub(end).Abs() > 10*time.Millisecond {
			a.t.Errorf("agent %d was told twice within %s", a.n, p.at.Sub(problems[i-1].at))
		}
	}
	if expired != 1 {
		a.t.Errorf("agent %d was told %d times at the end of its credential:%s", a.n, expired, a.story())
	}
}

// STS answers only a fraction of what is asked: everybody is served in the
// end, the pace falls and recovers, and never exceeds the configured rate.
func TestThrottling(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents, quota, perSecond = 600, 5.0, 50.0
		bucket := newPace(quota)
		var mu sync.Mutex
		w.sts.set(func(s *fakeSTS) {
			s.fail = func(context.Context, issuer.Request) error {
				mu.Lock()
				defer mu.Unlock()
				if !bucket.bucket.AllowN(time.Now(), 1) {
					return errThrottled
				}
				return nil
			}
		})
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(30 * time.Second)
		if r := w.m.Stats().Accounts[0].Rate; r > perSecond/2 {
			t.Errorf("the pace is %v while STS throttles", r)
		}
		after(4 * time.Minute)
		for _, a := range all {
			if len(a.credentials()) != 1 {
				t.Fatalf("agent %d has %d credentials", a.n, len(a.credentials()))
			}
			for _, p := range a.problems() {
				wantReason(t, p.Problem.Err, reason.STSThrottled)
			}
		}
		checkBudget(t, w.sts.made(), perSecond)
		// A good half of the calls must not be wasted.
		if n := w.sts.count(); n > 3*agents {
			t.Errorf("%d calls for %d credentials", n, agents)
		}
		after(2 * time.Minute)
		if r := w.m.Stats().Accounts[0].Rate; r != perSecond {
			t.Errorf("the pace did not recover: %v", r)
		}
	}, withRate(50))
}

// STS is away for two thirds of a lifetime, and comes back with a tenth of the
// quota. Who can be saved is: those served are the earliest to expire, and the
// little that STS gives is used.
func TestOutageThenATenthOfTheQuota(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents, quota = 1000, 1.0
		all, ends := make([]*agent, agents), map[string]time.Time{}
		for i := range all {
			all[i] = w.subscribe(i)
			pass(hour / 2 / agents)
		}
		after(time.Minute)
		w.sts.failing(errDown)
		after(40 * time.Minute)
		for i, a := range all {
			ends[holder(i).AgentID] = a.credential().Expires
		}
		back, bucket := w.sts.count(), newPace(quota).bucket
		w.sts.set(func(s *fakeSTS) {
			s.fail = func(context.Context, issuer.Request) error {
				if !bucket.AllowN(time.Now(), 1) {
					return errThrottled
				}
				return nil
			}
		})
		const watched = 10 * time.Minute
		began := time.Now()
		after(watched)
		var served []call
		for _, c := range w.sts.made()[back:] {
			if c.err == nil {
				served = append(served, c)
			}
		}
		if n := float64(len(served)); n < 2.0/3*quota*watched.Seconds() {
			t.Errorf("%v of %v credentials that STS would have given were asked for", n, quota*watched.Seconds())
		}
		// A throttled lease waits a moment, while the next ones are served.
		late := 0
		for i, c := range served[1:] {
			if ends[c.request.Tags[2].Value].Before(ends[served[i].request.Tags[2].Value]) {
				late++
			}
		}
		if late > len(served)/4 {
			t.Errorf("%d of %d were served after one that expires later", late, len(served))
		}
		// Nobody ran dry for whom there was time, but for those moments.
		for i, a := range all {
			end := ends[holder(i).AgentID]
			if len(a.credentials()) > 1 || end.Before(began) || end.After(began.Add(watched)) {
				continue
			}
			for _, c := range served {
				if c.at.Before(end.Add(-2*throttledBackoff)) && ends[c.request.Tags[2].Value].After(end) {
					t.Fatalf("agent %d ran dry at %s; one that ends at %s was served at %s", i, end, ends[c.request.Tags[2].Value], c.at)
				}
			}
		}
	}, withRate(10), quietly)
}

// An account that is down, hangs or throttles does not delay another.
func TestAccountsAreIndependent(t *testing.T) {
	for name, spoil := range map[string]func(*fakeSTS){
		"down":      func(s *fakeSTS) { s.fail = func(context.Context, issuer.Request) error { return errDown } },
		"throttled": func(s *fakeSTS) { s.fail = func(context.Context, issuer.Request) error { return errThrottled } },
		"hanging":   func(s *fakeSTS) { s.latency = hour },
		"slow":      func(s *fakeSTS) { s.latency = 20 * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			other := newSTS()
			inBubble(t, func(t *testing.T, w *world) {
				w.authority.addGrant("g3", "other", hour)
				w.sts.set(spoil)
				for i := range 200 {
					w.subscribe(i)
				}
				after(time.Second)
				b := w.subscribeAs(1000, holder(1000), "g3", nil)
				after(50 * time.Millisecond)
				b.want(1, 0, 0)
				after(100 * time.Minute)
				for i, c := range b.credentials()[1:] {
					if left := b.credentials()[i].Credential.Expires.Sub(c.at); left < hour/3 {
						t.Errorf("the other account's agent had only %s left", left)
					}
				}
			}, withAccount("other", other), quietly, abruptly)
		})
	}
}

// While the audit trail cannot be written nothing is issued, STS is not even
// asked, and everything catches up by itself.
func TestAuditDown(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		all := make([]*agent, 50)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(time.Minute)
		calls := w.sts.count()
		w.trail.set(func(f *fakeTrail) { f.down = errDiskFull })
		first := w.subscribe(1000)
		after(45 * time.Minute)
		first.want(0, len(first.problems()), 0)
		wantReason(t, first.problems()[0].Problem.Err, reason.AuditUnavailable)
		if n := w.sts.count() - calls; n != 0 {
			t.Errorf("%d calls were made although nothing can be recorded", n)
		}
		w.trail.set(func(f *fakeTrail) { f.down = nil })
		after(10 * time.Second)
		for _, a := range append(all, first) {
			if c := a.credential(); c == nil || c.Expires.Before(time.Now().Add(hour/3)) {
				t.Errorf("agent %d was not supplied after the trail came back", a.n)
			}
		}
	}, quietly)
}

// The trail fails without having said so before: the credential is not
// released, and the calls made in vain are few.
func TestAuditFailsUnannounced(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.trail.set(func(f *fakeTrail) { f.down, f.blind = errDiskFull, true })
		all := make([]*agent, 50)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(30 * time.Minute)
		if n := w.sts.count(); n > 1000 {
			t.Errorf("%d calls in vain", n)
		}
		for _, a := range all {
			if len(a.credentials()) != 0 || len(a.problems()) == 0 {
				t.Fatalf("agent %d was told:%s", a.n, a.story())
			}
			wantReason(t, a.problems()[0].Problem.Err, reason.AuditUnavailable)
		}
		w.trail.set(func(f *fakeTrail) { f.down = nil })
		after(10 * time.Second)
		for _, a := range all {
			a.want(1, len(a.problems()), 0)
		}
	}, quietly)
}

// One lease that always fails is not retried faster because others succeed.
func TestOnePoisonedLease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) {
			s.fail = func(_ context.Context, r issuer.Request) error {
				if r.Tags[2].Value == "a666" {
					return errDown
				}
				return nil
			}
		})
		bad := w.subscribe(666)
		for i := range 200 {
			w.subscribe(i)
			pass(3 * time.Second)
		}
		synctest.Wait()
		poisoned := 0
		for _, c := range w.sts.made() {
			if c.request.Tags[2].Value == "a666" {
				poisoned++
			}
		}
		// Ten minutes at about one in seven seconds.
		if poisoned < 40 || poisoned > 160 {
			t.Errorf("the lease that always fails was tried %d times in ten minutes", poisoned)
		}
		if len(bad.problems()) < 5 || len(bad.problems()) > 11 {
			t.Errorf("it was told %d times in ten minutes", len(bad.problems()))
		}
		if w.m.Stats().Accounts[0].Down {
			t.Error("one lease took the account down")
		}
	}, quietly)
}

// What STS asks for with Retry-After is kept to.
func TestRetryAfterIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.failing(&issuer.Error{Kind: issuer.Transient, Code: "ServiceUnavailable", RetryAfter: 40 * time.Second})
		a := w.subscribe(1)
		after(39 * time.Second)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls before the time that STS asked for", n)
		}
		if p := a.problems()[0]; p.Problem.RetryAt.Sub(p.at) != 40*time.Second {
			t.Errorf("the retry is told for %s", p.Problem.RetryAt)
		}
		w.sts.failing(nil)
		after(2 * time.Second)
		a.want(1, 1, 0)
	}, quietly)
}
