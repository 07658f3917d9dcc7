package lease

import (
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

func TestStats(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.subscribe(1)
		after(10 * time.Minute)
		lingering := w.subscribe(2)
		after(time.Second)
		lingering.sub.Close()
		w.sts.set(func(s *fakeSTS) { s.latency = 30 * time.Second })
		w.subscribe(3)
		after(time.Second)
		w.subscribe(4)
		after(10 * time.Second)
		w.authority.deny("agent:a5", reason.New(reason.AgentDisabled, "disabled"))
		w.subscribe(5)
		after(0)
		s := w.m.Stats()
		want := Stats{
			Counts: Counts{Calls: 3, Issued: 2, Refused: 1},
			Leases: 5, Subscriptions: 4, Dry: 2, Emptiest: hour - 10*time.Minute - 12*time.Second, HasCredential: true,
		}
		if len(s.Accounts) != 1 {
			t.Fatalf("%d accounts", len(s.Accounts))
		}
		if a := (AccountStats{Name: "main", Due: 1, InFlight: 1, Lag: 10 * time.Second, Rate: 100, Limit: 100}); s.Accounts[0] != a {
			t.Errorf("the account is %+v, want %+v", s.Accounts[0], a)
		}
		if s.Counts != want.Counts || s.Leases != want.Leases || s.Subscriptions != want.Subscriptions || s.Dry != want.Dry || s.Emptiest != want.Emptiest {
			t.Errorf("the state is %+v, want %+v", s, want)
		}
	}, withMaxCalls(1), abruptly)
}

func TestLeases(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		lingering := w.subscribe(2)
		after(time.Minute)
		lingering.sub.Close()
		w.sts.failing(errDown)
		w.subscribe(3)
		after(30 * time.Second)
		w.sts.failing(errDenied)
		w.subscribe(4)
		after(0)
		got := map[string]Status{}
		for s := range w.m.Leases() {
			got[s.Holder.AgentID] = s
		}
		c := a.credential()
		s := got["a1"]
		if s.Holder.Agent != "agent-1" || s.GrantID != "g1" || s.Grant != "grant-g1" || s.Account != "main" || s.Subscriptions != 1 || !s.Entitled ||
			s.CredentialID != c.ID || !s.Expires.Equal(c.Expires) || s.Resumed || s.Due || s.InFlight || s.Problem != "" {
			t.Errorf("the supplied one is %+v", s)
		}
		if at := s.RenewAt.Sub(c.IssuedAt); at < hour/2 || at > 39*time.Minute {
			t.Errorf("it is renewed after %s", at)
		}
		if s := got["a2"]; s.Subscriptions != 0 || s.Entitled || s.CredentialID == "" {
			t.Errorf("the lingering one is %+v", s)
		}
		if s := got["a3"]; s.Problem != reason.STSUnavailable || s.RetryAt.IsZero() {
			t.Errorf("the one in trouble is %+v", s)
		}
		if s := got["a4"]; s.Problem != reason.STSRefused || !s.RetryAt.IsZero() {
			t.Errorf("the refused one is %+v", s)
		}
		n := 0
		for range w.m.Leases() {
			n++
			break
		}
		if n != 1 || len(got) != 4 {
			t.Errorf("%d leases, %d after a break", len(got), n)
		}
	}, quietly)
}

// watcher is an observer.
type watcher struct {
	took   []time.Duration
	packed []int
	failed int
}

func (o *watcher) Called(_ string, took time.Duration, packed int, err error) {
	o.took, o.packed = append(o.took, took), append(o.packed, packed)
	if err != nil {
		o.failed++
	}
}

func TestObserver(t *testing.T) {
	o := &watcher{}
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 300 * time.Millisecond })
		w.subscribe(1)
		after(time.Second)
		w.sts.failing(errDenied)
		w.subscribe(2)
		after(time.Second)
		if len(o.took) != 2 || o.took[0] != 300*time.Millisecond || o.packed[0] != 12 || o.failed != 1 {
			t.Errorf("observed %+v", o)
		}
	}, quietly, func(_ *world, c *Config) { c.Observer = o })
}
