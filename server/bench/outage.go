package bench

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// issuesPerMinute is how many agents this machine can issue to within a
// minute's lifetime while an STS recovers; more need a longer lifetime.
const issuesPerMinute = 5000

// outage shuts the STS for two thirds of a lifetime and opens it with a tenth
// of the quota.
func (b *bench) outage(ctx context.Context) (err error) {
	n := min(b.Agents, int(issuesPerMinute*b.Lifetime.Minutes()))
	// What renewals take in the long run, and a quota of which a tenth is
	// still three times that.
	demand := float64(n) / (meanAge * b.Lifetime.Seconds())
	quota := 30 * demand
	s, agents, err := b.build(ctx, "outage", site.Config{Rate: quota, Groups: []site.Group{{Tenant: tenant, Agents: n, Lifetime: b.Lifetime}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	broker, err := b.start(ctx, s, "broker", "127.0.0.1:0", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Kill()) }()
	f, err := fleet.New(fleet.Options{Agents: agents, Brokers: []string{broker.Address}, Return: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(f)) }()
	// Over one cycle, so that at any moment some are due.
	if err := f.ConnectOver(ctx, time.Duration(meanAge*float64(b.Lifetime))); err != nil {
		return err
	}
	if err := f.AwaitSupplied(ctx); err != nil {
		return err
	}
	s.STS.Load()
	s.STS.Down(true)
	if err := wait(ctx, b.Lifetime*2/3); err != nil {
		return err
	}
	down := s.STS.Load()
	before, late := f.Holding(), f.Stats().Late[0]
	opened := time.Now()
	s.STS.Quota(quota / 10)
	s.STS.Down(false)
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	saved, recovered, err := recover10th(limited, f, before, opened)
	if err != nil {
		return err
	}
	up := s.STS.Load()
	possible := savable(before, opened, quota/10)
	formula := recoveryTime(float64(len(before)), float64(len(before)), quota/10, demand)
	b.measureOutage(n, Measure{Name: "calls a second while the STS is away", Unit: Rate, Stoker: float64(down.Calls) / (b.Lifetime * 2 / 3).Seconds(), Goal: atMost(2)})
	b.measureOutage(n, Measure{Name: "leases that can be saved", Unit: Count, Stoker: float64(possible)})
	b.measureOutage(n, Measure{Name: "leases that were saved", Unit: Count, Stoker: float64(saved), Goal: atLeast(float64(possible) * tolerated)})
	b.measureOutage(n, Measure{Name: "all supplied after the STS is back", Unit: Seconds, Stoker: recovered.Seconds(), Goal: atMost(formula.Seconds() / tolerated)})
	b.measureOutage(n, Measure{Name: "the same by the formula of docs/scale.md", Unit: Seconds, Stoker: formula.Seconds()})
	b.measureOutage(n, Measure{Name: "most calls within a second, of the budget", Unit: Share, Stoker: float64(up.Most) / quota, Goal: atMost(1.1)})
	b.measureOutage(n, Measure{Name: "calls throttled", Unit: Count, Stoker: float64(up.Throttled)})
	b.measureOutage(n, Measure{Name: "renewals below a third, outage included", Unit: Count, Stoker: float64(f.Stats().Late[0] - late)})
	return nil
}

// tolerated is how much of what is possible must be reached where time is
// compressed: backoffs and probes are not.
const tolerated = 0.9

func (b *bench) measureOutage(n int, m Measure) {
	m.Mode, m.Agents = "outage", n
	b.report.add(m)
}

// recover10th waits until all hold a credential that was issued after the STS
// was back, and counts those who never were without one.
func recover10th(ctx context.Context, f *fleet.Fleet, before []fleet.Held, opened time.Time) (saved int, took time.Duration, err error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	got := make([]bool, len(before))
	for left := len(before); left > 0; {
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case now := <-tick.C:
			for i, h := range f.Holding() {
				if got[i] || h.ID == before[i].ID {
					continue
				}
				got[i] = true
				left--
				if h.Issued.Before(before[i].Expires) {
					saved++
				}
				took = now.Sub(opened)
			}
		}
	}
	return saved, took, nil
}

// savable is how many of the credentials can be renewed before they end by
// whoever makes so many calls a second, earliest end first, and wastes none on
// those that have ended.
func savable(held []fleet.Held, from time.Time, perSecond float64) int {
	sorted := slices.SortedFunc(slices.Values(held), func(a, b fleet.Held) int { return cmp.Compare(a.Expires.UnixNano(), b.Expires.UnixNano()) })
	n := 0
	for _, h := range sorted {
		if h.Expires.Sub(from).Seconds() >= float64(n+1)/perSecond {
			n++
		}
	}
	return n
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
