package lease

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Each test here is of a fault that brokers like this one had.

// A shared call ran on its first caller's context: one cancel failed all who
// waited for it.
func TestFault01SharedCallEndsWithItsFirstCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 10 * time.Second })
		first, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := w.m.Credential(first, holder(1), "g1", 0)
			gone <- err
		}()
		synctest.Wait()
		a := w.subscribe(1)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { w.ask(holder(1), 0) })
		}
		after(time.Second)
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the first caller got %v", err)
		}
		all.Wait()
		a.want(1, 0, 0)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// Reading and then filling a cache made two calls of two misses.
func TestFault02TwoMissesMakeTwoCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		// The authority makes room for the others between look-up and issue.
		w.authority.onEntitle = func(Holder) { runtime.Gosched() }
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { w.ask(holder(1), 0) })
			all.Go(func() { w.subscribe(1) })
		}
		all.Wait()
		after(time.Second)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// The notice that a credential had expired was dropped when a channel was full.
func TestFault03ExpiryNoticeIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		all := make([]*agent, 20)
		for i := range all {
			all[i] = w.subscribe(1)
		}
		after(time.Minute)
		w.sts.failing(errDown)
		after(2 * hour)
		for _, a := range all {
			end, notices := a.credential().Expires, 0
			for _, p := range a.problems() {
				if p.at.Equal(end) {
					notices++
				}
			}
			if notices != 1 {
				t.Fatalf("the end was told %d times:%s", notices, a.story())
			}
		}
	}, quietly)
}

// A failed refresh replaced the last good credential by an empty one.
func TestFault05FailureReplacesTheLastGoodCredential(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		good := w.ask(holder(1), 0)
		for _, err := range []error{errDown, errThrottled, errDenied} {
			w.sts.failing(err)
			w.m.Recheck()
			after(50 * time.Minute / 3)
			if c := w.ask(holder(1), time.Second); c.ID != good.ID || c.SecretAccessKey.IsZero() {
				t.Errorf("after %v the credential is %+v", err, c)
			}
			a.want(1, len(a.problems()), 0)
		}
	}, quietly)
}

// A limiter took two tokens for each refresh and so ran at half its rate.
func TestFault07TwoTokensForOneCall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		began := time.Now()
		for i := range 1000 {
			w.subscribe(i)
		}
		after(2 * time.Minute)
		calls := w.sts.made()
		if took := calls[999].at.Sub(began); took < 49*time.Second || took > 51*time.Second {
			t.Errorf("1,000 calls at 20 a second took %s", took)
		}
	}, withRate(20))
}

// Jitter was drawn anew at every poll, so that renewals bunched.
func TestFault08JitterIsDrawnAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Second)
		renewAt := func() time.Time {
			for s := range w.m.Leases() {
				return s.RenewAt
			}
			t.Fatal("no lease")
			return time.Time{}
		}
		first := renewAt()
		for range 20 {
			after(time.Minute)
			w.change(storage.KindGrant, "g1")
			w.subscribe(1).sub.Close()
			w.ask(holder(1), 0)
			if !renewAt().Equal(first) {
				t.Fatalf("the renewal moved from %s to %s", first, renewAt())
			}
		}
		w.restart()
		b := w.subscribeAs(1, holder(1), "g1", &Held{ID: a.credential().ID})
		after(time.Second)
		if !renewAt().Equal(first) {
			t.Errorf("the restart moved the renewal from %s to %s", first, renewAt())
		}
		after(20 * time.Minute)
		if at := b.credentials()[0].at; at.Sub(first).Abs() > time.Second {
			t.Errorf("renewed at %s, planned for %s", at, first)
		}
	})
}

// The renewal loop ignored its own backoff and spun while the server was away.
func TestFault09SpinsWhileTheServerIsAway(t *testing.T) {
	for name, err := range map[string]error{"down": errDown, "throttled": errThrottled, "odd": errors.New("odd")} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.sts.failing(err)
				w.subscribe(1)
				after(hour)
				if n := w.sts.count(); n < 100 || n > 2500 {
					t.Errorf("%d calls for one lease in an hour", n)
				}
			}, quietly)
		})
	}
}

// Every error was remembered for two minutes, a passing one too.
func TestFault10PassingErrorIsRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.failing(errDown)
		a := w.subscribe(1)
		after(100 * time.Millisecond)
		a.want(0, 1, 0)
		w.sts.failing(nil)
		after(2 * time.Second)
		a.want(1, 1, 0)
	}, quietly)
}

// The key of the cache held what has no part in the answer.
func TestFault11KeyHoldsTooMuch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for i := range 20 {
			h := holder(1)
			h.SessionID, h.Peer, h.PasswordVersion = holder(i).SessionID, holder(i).Actor, int64(i)
			h.Certificate.Serial, h.Certificate.Thumbprint = holder(i).Certificate.Serial, holder(i).Certificate.Thumbprint
			h.Certificate.NotAfter = h.Certificate.NotAfter.Add(time.Duration(i) * hour)
			w.subscribeAs(i, h, "g1", nil)
			w.ask(h, 0)
		}
		after(time.Minute)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls for one agent, user and grant", n)
		}
	})
}

// The network was used under the lock: everybody waited.
func TestFault12NetworkUnderTheLock(t *testing.T) {
	for name, hang := range map[string]func(*world){
		"STS": func(w *world) { w.sts.set(func(s *fakeSTS) { s.latency = time.Minute }) },
		"audit": func(w *world) {
			w.trail.set(func(f *fakeTrail) { f.onAppend = func(storage.AuditRecord) { pass(time.Minute) } })
		},
		"history": func(w *world) { w.trail.set(func(f *fakeTrail) { f.slow = time.Minute }) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.subscribe(1)
				after(2 * time.Minute)
				w.authority.deny("agent:a9", reason.New(reason.AgentDisabled, "disabled"))
				hang(w)
				for i := range 100 {
					w.subscribeAs(100+i, holder(100+i), "g1", &Held{ID: "held", Expires: time.Now().Add(hour)})
				}
				w.subscribe(9)
				after(time.Second)
				began := time.Now()
				w.ask(holder(1), 0)
				w.subscribe(1).want(1, 0, 0)
				w.subscribe(50)
				w.change(storage.KindTenant, "t1")
				w.m.Stats()
				for range w.m.Leases() {
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("everybody waited %s", took)
				}
			}, quietly, abruptly)
		})
	}
}

// When one credential could not be had another role's was served in its place.
func TestFault13AnotherCredentialInItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) {
			s.fail = func(_ context.Context, r issuer.Request) error {
				if r.Policy == `{"Statement":[{"g2":1}]}` {
					return errDown
				}
				return nil
			}
		})
		a := w.subscribe(1)
		b := w.subscribeAs(1, holder(1), "g2", nil)
		after(hour)
		if c, err := w.m.Credential(t.Context(), holder(1), "g2", 0); err == nil {
			t.Errorf("got a credential of %s", c.GrantID)
		}
		b.want(0, len(b.problems()), 0)
		for _, c := range a.credentials() {
			if c.Credential.GrantID != "g1" {
				t.Errorf("got a credential of %s", c.Credential.GrantID)
			}
		}
	}, quietly)
}

// A stream was not told that what it had was gone.
func TestFault14NotToldThatItIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		all := make([]*agent, 100)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(time.Minute)
		w.authority.deny("grant:g1", reason.New(reason.GrantDeleted, "deleted"))
		w.change(storage.KindGrant, "g1")
		for _, a := range all {
			a.want(1, 0, 1)
		}
		after(2 * hour)
		for _, a := range all {
			a.want(1, 0, 1)
		}
	})
}

// Dropping a lease dropped its duration too, and clients never refreshed.
func TestFault15DurationIsDroppedWithTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for range 5 {
			a := w.subscribe(1)
			after(70 * time.Minute)
			if n := len(a.credentials()); n != 2 && n != 3 {
				t.Fatalf("%d credentials in 70 minutes", n)
			}
			for _, c := range a.credentials() {
				if !c.Credential.Expires.Equal(c.Credential.IssuedAt.Add(hour)) {
					t.Errorf("a credential of %s until %s", c.Credential.IssuedAt, c.Credential.Expires)
				}
			}
			a.sub.Close()
			after(10 * time.Minute)
			if n := w.m.Stats().Leases; n != 0 {
				t.Fatalf("%d leases", n)
			}
		}
	})
}

// A restart sent every client to the broker at once, and the broker to its
// database, until memory ran out.
func TestFault17RestartStorm(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents = 1500
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(time.Minute)
		w.trail.set(func(f *fakeTrail) { f.slow, f.most = 20*time.Millisecond, 0 })
		w.restart()
		calls, goroutines := w.sts.count(), runtime.NumGoroutine()
		// Half of them cannot be confirmed.
		w.trail.set(func(f *fakeTrail) { f.records = f.records[agents/2:] })
		for i := range agents {
			w.subscribeAs(i, holder(i), "g1", &Held{ID: all[i].credential().ID})
		}
		if n := runtime.NumGoroutine() - goroutines; n > 200 {
			t.Errorf("%d goroutines for %d agents", n, agents)
		}
		after(30 * time.Second)
		if w.trail.most > defaultLookups {
			t.Errorf("%d look-ups at once", w.trail.most)
		}
		if n := w.sts.count() - calls; n != agents/2 {
			t.Errorf("%d calls for %d agents that cannot resume", n, agents/2)
		}
		checkBudget(t, w.sts.made()[calls:], 100)
	}, quietly)
}
