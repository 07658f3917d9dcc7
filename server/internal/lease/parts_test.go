package lease

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
)

// The queue agrees with a plain list, whatever is done to it, and every lease
// knows its place.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := queue{kind: inReady}
		leases := make([]*lease, 40)
		for i := range leases {
			leases[i] = &lease{}
		}
		model := map[*lease]instant{}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				l, at := rapid.SampledFrom(leases).Draw(t, "lease"), instant(rapid.IntRange(0, 50).Draw(t, "at"))
				q.put(l, at)
				model[l] = at
			},
			"drop": func(t *rapid.T) {
				l := rapid.SampledFrom(leases).Draw(t, "lease")
				q.drop(l)
				delete(model, l)
			},
			"pop": func(t *rapid.T) {
				if q.len() == 0 {
					return
				}
				head := q.head()
				for _, at := range model {
					if at < head.at {
						t.Fatalf("the head is of %d, there is one of %d", head.at, at)
					}
				}
				q.drop(head.lease)
				delete(model, head.lease)
			},
			"": func(t *rapid.T) {
				if q.len() != len(model) {
					t.Fatalf("%d entries, want %d", q.len(), len(model))
				}
				for i, e := range q.items {
					if int(e.lease.place[inReady]) != i+1 || model[e.lease] != e.at {
						t.Fatalf("entry %d has place %d and time %d, want %d", i, e.lease.place[inReady], e.at, model[e.lease])
					}
				}
			},
		})
	})
}

// A storm's queue gives its memory back.
func TestQueueShrinks(t *testing.T) {
	q := queue{kind: inTimers}
	all := make([]*lease, 10_000)
	for i := range all {
		all[i] = &lease{}
		q.put(all[i], instant(rand.IntN(1000)))
	}
	before, last := cap(q.items), instant(0)
	for q.len() > 0 {
		if at := q.head().at; at < last {
			t.Fatalf("%d came after %d", at, last)
		}
		last = q.head().at
		q.drop(q.head().lease)
	}
	if after := cap(q.items); after > before/4 {
		t.Errorf("an empty queue keeps room for %d", after)
	}
}

// The index agrees with a plain list.
func TestIndex(t *testing.T) {
	var x index
	x.init()
	subs := make([]*Subscription, 50)
	in := map[*Subscription]string{}
	for i := range subs {
		subs[i] = &Subscription{}
	}
	for range 5000 {
		s := subs[rand.IntN(len(subs))]
		if key, ok := in[s]; ok {
			x.remove(byUser, key, s)
			x.remove(byUser, key, s) // once more does nothing
			delete(in, s)
		} else {
			in[s] = fmt.Sprintf("u%d", rand.IntN(5))
			x.add(byUser, in[s], s)
			x.add(byGrant, "", s)
		}
		n := 0
		for key, list := range x[byUser] {
			n += len(list)
			for i, s := range list {
				if in[s] != key || int(s.place[byUser]) != i+1 {
					t.Fatalf("a subscription of %q is under %q at %d", in[s], key, i)
				}
			}
		}
		if n != len(in) || len(x[byGrant]) != 0 {
			t.Fatalf("%d are in the index, want %d", n, len(in))
		}
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(40)
		now := time.Now
		spend := func(d time.Duration) int {
			n := 0
			for end := now().Add(d); ; {
				wait := p.wait(now())
				if now().Add(wait).After(end) {
					pass(end.Sub(now()))
					return n
				}
				pass(wait)
				if !p.take(now()) {
					t.Fatal("there was no token when there should have been one")
				}
				n++
			}
		}
		spend(time.Second)
		if n := spend(10 * time.Second); n < 395 || n > 401 {
			t.Errorf("%d calls in ten seconds at 40 a second", n)
		}
		// A burst of refusals to calls of before cuts the rate once.
		began := now()
		pass(time.Second)
		for range 20 {
			p.throttled(began, now())
		}
		if r := p.rateAt(now()); r != 40*cutTo {
			t.Errorf("the rate is %v", r)
		}
		// Throttled on and on it falls, but not to nothing.
		for range 20 {
			pass(time.Millisecond)
			p.throttled(now(), now())
		}
		if r := p.rateAt(now()); r != 40./deepest {
			t.Errorf("the rate is %v", r)
		}
		// It is soon back near where it was throttled, and takes its time
		// from there.
		spend(regain)
		if r := p.rateAt(now()); r > 1 {
			t.Errorf("the rate is %v after %s", r, regain)
		}
		spend(7 * doubling)
		if r := p.rateAt(now()); r != 40 || !p.cut.IsZero() {
			t.Errorf("the rate is %v after the recovery", r)
		}
		if n := spend(10 * time.Second); n > 401 {
			t.Errorf("%d calls in ten seconds at 40 a second", n)
		}
	})
}

// What was saved up for a burst is not called at the old pace after a cut: STS
// would throttle that too, and the rate fall far below what STS gives.
func TestThrottlingTakesTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(2600)
		const quota = 260
		sts := newPace(quota)
		sts.bucket.AllowN(time.Now(), burst(quota)) // used up by others
		lowest := p.full
		began, calls, given := time.Now(), 0, 0
		pass(time.Second)
		for time.Since(began) < 20*time.Second {
			pass(p.wait(time.Now()))
			p.take(time.Now())
			calls++
			if sts.bucket.AllowN(time.Now(), 1) {
				given++
			} else {
				p.throttled(time.Now(), time.Now())
				lowest = min(lowest, p.low)
			}
		}
		if lowest < quota/2 {
			t.Errorf("the rate fell to %v of %v", lowest, quota)
		}
		if given < quota*20*8/10 || calls-given > given/20 {
			t.Errorf("%d of %d calls were given in 20 s, at %v a second", given, calls, quota)
		}
	})
}

func TestGate(t *testing.T) {
	var g gate
	a, b := &lease{}, &lease{}
	down := reason.New(reason.STSUnavailable, "away")
	now := instant(time.Hour)
	for range 10 {
		if g.failed(a, down, now) {
			t.Fatal("one lease closed the gate")
		}
	}
	if g.failed(b, down, now) || !g.failed(a, down, now) {
		t.Error("the third of different leases must close the gate, and no other")
	}
	for range 10 {
		if wait := g.wait(now); wait < firstProbe/2 || wait > lastProbe {
			t.Errorf("the next probe is in %s", wait)
		}
		now = g.probeAt
		if g.wait(now) != 0 {
			t.Error("the probe has to wait")
		}
		g.failed(a, down, now)
	}
	if g.interval != lastProbe || g.cause != down {
		t.Errorf("the gate is %+v", g)
	}
	if !g.answered() || g.answered() || g.wait(now) != 0 {
		t.Error("the gate did not open, or twice")
	}
}

func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		c.init(3, 10)
		var working, most, done atomic.Int32
		job := func() {
			most.Store(max(most.Load(), working.Add(1)))
			pass(time.Second)
			working.Add(-1)
			done.Add(1)
		}
		taken := 0
		for range 20 {
			if c.do(job) {
				taken++
			}
			synctest.Wait()
		}
		if taken != 13 { // three at work, ten waiting
			t.Errorf("%d jobs were taken", taken)
		}
		c.close()
		if c.do(job) || most.Load() != 3 || int(done.Load()) != taken {
			t.Errorf("%d at once, %d done of %d", most.Load(), done.Load(), taken)
		}
	})
}

// Backoff keeps its bounds: the more failures, the longer, but shorter as the
// end nears.
func TestBackoff(t *testing.T) {
	now := instant(time.Hour)
	ending := func(d time.Duration) *holding { return &holding{end: now.add(d)} }
	for _, c := range []struct {
		attempts uint8
		cur      *holding
		highest  time.Duration
		want     time.Duration
	}{
		{1, ending(hour), 0, time.Second}, {2, ending(hour), 0, 2 * time.Second}, {7, ending(hour), 0, lastBackoff},
		{255, ending(hour), 0, lastBackoff}, {7, ending(2 * time.Minute), 0, 15 * time.Second}, {7, ending(time.Second), 0, time.Second},
		{7, ending(-time.Second), 0, dryBackoff}, {7, nil, 0, dryBackoff}, {7, ending(hour), throttledBackoff, throttledBackoff},
	} {
		l := &lease{attempts: c.attempts, cur: c.cur}
		var longest time.Duration
		for range 2000 {
			d := l.backoff(now, c.highest)
			if d < leastBackoff || d > c.want {
				t.Fatalf("a wait of %s after %d failures, want at most %s", d, c.attempts, c.want)
			}
			longest = max(longest, d)
		}
		if longest < c.want*9/10 {
			t.Errorf("the longest of 2,000 waits after %d failures is %s, want about %s", c.attempts, longest, c.want)
		}
	}
}

// Session names fit both methods, are unique, and sort by time.
func TestSessionName(t *testing.T) {
	var names []string
	for range 2000 {
		id, err := uuid.NewV7()
		if err != nil {
			t.Fatal(err)
		}
		name := sessionName(id, "", 64)
		if len(name) != issuer.MaxFederatedNameChars {
			t.Fatalf("%q has %d characters", name, len(name))
		}
		names = append(names, name)
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(names) {
		t.Error("the names are not in order, or not unique")
	}
	for _, id := range []uuid.UUID{{}, uuid.Max} {
		if name := sessionName(id, "", 0); len(name) != issuer.MaxFederatedNameChars {
			t.Errorf("%q has %d characters", name, len(name))
		}
	}
}

// A service's session shows what for, in words that mean nothing to a policy.
func TestSessionNameOfAPurpose(t *testing.T) {
	id := uuid.MustParse("01932c07-9f4e-7a3b-8c21-5d6e7f809192")
	for _, c := range []struct {
		purpose string
		longest int
		want    string
	}{
		{"ticket 4711", 0, "ticket-4711-"},
		{"ticket 4711: the whole of acme, by request", 32, "ticket-4711-"},
		{"ticket 4711: the whole of acme, by request", 64, "ticket-4711-the-whole-of-acme-by-request-"},
		{"INC#0042 / host db-1", 32, "inc-0042-ho-"},
		{"*", 32, ""},
		{"${aws:userid}:*?", 64, "aws-userid-"},
		{"--a--", 32, "a-"},
		{"Überprüfung", 64, "berpr-fung-"},
		{"日本", 64, ""},
		{strings.Repeat("a ", 128), 64, strings.Repeat("a-", 22)},
		{"abcdefghij k", 32, "abcdefghij-"},
	} {
		name := sessionName(id, c.purpose, c.longest)
		mark, found := strings.CutPrefix(name, "stoker-"+c.want)
		if !found || !regexp.MustCompile(`^[0-9a-z]{13}$`).MatchString(mark) {
			t.Errorf("%q gives %q, want stoker-%s and a mark", c.purpose, name, c.want)
		}
		if len(name) > max(c.longest, issuer.MaxFederatedNameChars) {
			t.Errorf("%q has %d characters", name, len(name))
		}
	}
	seen := map[string]bool{}
	for range 5000 {
		seen[sessionName(uuid.Must(uuid.NewV7()), "ticket 4711", 32)] = true
	}
	if len(seen) != 5000 {
		t.Errorf("%d names of 5000 credentials", len(seen))
	}
}

// Whatever a purpose says, a session's name is one that STS takes and that
// stands for itself alone in a policy.
func FuzzSessionName(f *testing.F) {
	f.Add("ticket 4711", 32)
	f.Add("*?${}:/", 64)
	f.Add("\xff\x00-", 33)
	plain := regexp.MustCompile(`^stoker-([a-z0-9]+-)*[a-z0-9]{13}$|^stoker-[a-z0-9]{25}$`)
	f.Fuzz(func(t *testing.T, purpose string, longest int) {
		name := sessionName(uuid.Must(uuid.NewV7()), purpose, longest)
		if !plain.MatchString(name) || len(name) > max(longest, issuer.MaxFederatedNameChars) {
			t.Errorf("%q gives %q", purpose, name)
		}
	})
}
