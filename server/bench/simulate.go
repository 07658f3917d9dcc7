package bench

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// Outcome is what a simulated outage of STS came to.
type Outcome struct {
	// Renewals a second before the outage.
	Renewals float64
	// Lost and Recovery are as in Plan.
	Lost     int
	Recovery time.Duration
}

// mostSimulated bounds how many leases are followed one by one: of more, one
// stands for several, and makes its calls at a rate that is less by as much.
const mostSimulated = 1_000_000

// simulate follows leases from a steady state through an outage of STS and the
// time after it, at so many calls a second in all. Times are in lifetimes.
func simulate(agents int, lifetime, outage time.Duration, perSecond float64) Outcome {
	n := min(agents, mostSimulated)
	scale := float64(agents) / float64(n)
	rate := perSecond * lifetime.Seconds() / scale
	w := outage.Seconds() / lifetime.Seconds()
	random := rand.New(rand.NewPCG(1, 2))
	waiting := make(pending, 0, n)
	var coming pending
	early, lost := 0, 0
	for range n {
		due, end := steady(random)
		if due < tenth {
			early++
		}
		switch {
		case due <= w:
			waiting = append(waiting, lease{due: due, end: end})
			if end <= w {
				lost++
			}
		default:
			coming = append(coming, lease{due: due, end: end})
		}
	}
	out := Outcome{Renewals: float64(early) / tenth / lifetime.Seconds() * scale, Lost: int(float64(lost) * scale)}
	out.Recovery = time.Duration(catchUp(random, waiting, coming, w, rate) * float64(lifetime))
	return out
}

// tenth is the part of a lifetime over which renewals are counted.
const tenth = 0.1

// steady draws a lease of a steady state at time 0: when it is due, and when
// its credential ends. A longer wait is met more often than a shorter one, in
// proportion.
func steady(random *rand.Rand) (due, end float64) {
	span := math.Sqrt(earliestRenewal*earliestRenewal + random.Float64()*(latestRenewal*latestRenewal-earliestRenewal*earliestRenewal))
	age := random.Float64() * span
	return span - age, 1 - age
}

// catchUp serves what waits, earliest end first, and whatever falls due
// meanwhile, until nothing waits. It gives how long that takes.
func catchUp(random *rand.Rand, waiting, coming pending, from, rate float64) float64 {
	byEnd, byDue := order{waiting, func(l lease) float64 { return l.end }}, order{coming, func(l lease) float64 { return l.due }}
	heap.Init(&byEnd)
	heap.Init(&byDue)
	now := from
	// Far longer than any that catches up.
	for limit := from + 20; byEnd.Len() > 0 && now < limit; {
		for byDue.Len() > 0 && byDue.pending[0].due <= now {
			heap.Push(&byEnd, heap.Pop(&byDue))
		}
		heap.Pop(&byEnd)
		now += 1 / rate
		span := earliestRenewal + random.Float64()*(latestRenewal-earliestRenewal)
		heap.Push(&byDue, lease{due: now + span, end: now + 1})
	}
	return now - from
}

// lease is one in a simulation.
type lease struct{ due, end float64 }

type pending []lease

// order is a heap of leases.
type order struct {
	pending
	key func(lease) float64
}

func (o *order) Len() int           { return len(o.pending) }
func (o *order) Less(i, j int) bool { return o.key(o.pending[i]) < o.key(o.pending[j]) }
func (o *order) Swap(i, j int)      { o.pending[i], o.pending[j] = o.pending[j], o.pending[i] }
func (o *order) Push(l any)         { o.pending = append(o.pending, l.(lease)) } //nolint:forcetypeassert // only leases
func (o *order) Pop() any {
	last := o.pending[len(o.pending)-1]
	o.pending = o.pending[:len(o.pending)-1]
	return last
}
