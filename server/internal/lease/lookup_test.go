package lease

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// The history is away: the agent is told, its credential is not replaced for
// that, and is resumed once the history is back; but it is replaced in time.
func TestHistoryAway(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.subscribe(1)
		after(time.Minute)
		c := first.credential()
		w.restart()
		w.trail.set(func(f *fakeTrail) { f.lost = storage.ErrUnavailable })
		a := w.subscribeAs(1, holder(1), "g1", &Held{ID: c.ID, Expires: c.Expires})
		after(30 * time.Second)
		a.want(0, 1, 0)
		wantReason(t, a.problems()[0].Problem.Err, reason.StorageUnavailable)
		w.trail.set(func(f *fakeTrail) { f.lost = nil })
		after(time.Minute)
		a.want(0, 1, 0)
		if s := w.m.Stats(); s.Resumed != 1 || s.Calls != 0 {
			t.Errorf("%d resumed, %d calls", s.Resumed, s.Calls)
		}
	}, quietly, shortLifetimes)
}

func TestHistoryAwayTooLong(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.subscribe(1)
		after(time.Minute)
		c := first.credential()
		w.restart()
		w.trail.set(func(f *fakeTrail) { f.lost = errors.New("broken") })
		a := w.subscribeAs(1, holder(1), "g1", &Held{ID: c.ID, Expires: c.Expires})
		after(50 * time.Minute)
		if len(a.credentials()) == 0 || a.credentials()[0].at.After(c.Expires.Add(-15*time.Minute)) {
			t.Errorf("it was not replaced in time:%s", a.story())
		}
		// Somebody who leaves while the history hangs is forgotten.
		w.trail.set(func(f *fakeTrail) { f.slow = hour })
		b := w.subscribeAs(2, holder(2), "g1", &Held{ID: c.ID, Expires: c.Expires})
		after(time.Second)
		b.sub.Close()
		after(10 * time.Minute)
		b.want(0, 0, 0)
		if n := w.m.Stats().Leases; n != 1 {
			t.Errorf("%d leases", n)
		}
	}, quietly, shortLifetimes)
}

// shortLifetimes makes the account's longest lifetime that of the grants.
func shortLifetimes(_ *world, c *Config) {
	a := c.Accounts["main"]
	a.MaxLifetime = hour
	c.Accounts["main"] = a
}

// The credential is revoked while the history is being asked about it.
func TestRevokedDuringLookup(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.subscribe(1)
		after(time.Minute)
		id := first.credential().ID
		w.restart()
		w.trail.set(func(f *fakeTrail) { f.slow = time.Second })
		a := w.subscribeAs(1, holder(1), "g1", &Held{ID: id})
		after(500 * time.Millisecond)
		w.change(storage.KindRevocation, w.authority.revoke(id))
		after(time.Second)
		a.want(1, 0, 0)
		if w.m.Stats().Resumed != 0 {
			t.Error("a revoked credential was resumed")
		}
	})
}

// The credential is revoked when the history has confirmed it and it has not
// been accepted yet.
func TestRevokedAfterLookup(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.subscribe(1)
		after(time.Minute)
		w.restart()
		var done atomic.Bool
		w.authority.onRevoked = func(id string) {
			if !done.Swap(true) {
				w.change(storage.KindRevocation, w.authority.revoke(id))
			}
		}
		a := w.subscribeAs(1, holder(1), "g1", &Held{ID: first.credential().ID})
		after(time.Second)
		a.want(1, 0, 0)
		if w.m.Stats().Resumed != 0 {
			t.Error("a revoked credential was resumed")
		}
	})
}

// The broker's clock was set back since the credential was issued: it counts as
// old as it is, as far as that can be known.
func TestResumeAfterClockWasSetBack(t *testing.T) {
	for name, c := range map[string]struct {
		restart bool
		latest  time.Duration // from the issue to the renewal
	}{
		// The step was seen.
		"same broker": {false, 39 * time.Minute},
		// A new broker has only the record, and the lifetime in it.
		"new broker": {true, 25*time.Minute + 39*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.sts.wall = w.wall
				a := w.subscribe(1)
				after(20 * time.Minute)
				a.sub.Close()
				w.step(-40 * time.Minute)
				after(5 * time.Minute)
				if n := w.m.Stats().Leases; n != 0 {
					t.Fatalf("%d leases: nothing is proved", n)
				}
				if c.restart {
					w.restart()
				}
				b := w.subscribeAs(1, holder(1), "g1", &Held{ID: a.credential().ID})
				after(time.Minute)
				b.want(0, 0, 0)
				after(hour)
				if at := b.credentials()[0].at.Sub(a.credential().Expires.Add(-hour)); at > c.latest+time.Second {
					t.Errorf("renewed after %s", at)
				}
			}, quietly)
		})
	}
}
