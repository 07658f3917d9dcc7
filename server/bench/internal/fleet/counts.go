package fleet

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats counts since the fleet was made.
type Stats struct {
	// Dials counts connections that were begun, Failures those that failed,
	// and everything else that should not happen, by what it said.
	Dials    int64
	Failures map[string]int64
	// Messages received.
	Welcomes, Credentials, Revocations, Reconnects, Heartbeats int64
	// Problems and Ends by reason.
	Problems, Ends map[string]int64
	// Disorder counts credentials that were not issued after the one before
	// on the same stream.
	Disorder int64
	// Renewals counts by group, and Late those that came when a credential had
	// less than a third of its life left.
	Renewals, Late map[int]int64
}

// Add adds the counts of another fleet.
func (s *Stats) Add(o Stats) {
	s.Dials += o.Dials
	s.Welcomes += o.Welcomes
	s.Credentials += o.Credentials
	s.Revocations += o.Revocations
	s.Reconnects += o.Reconnects
	s.Heartbeats += o.Heartbeats
	s.Disorder += o.Disorder
	s.Failures, s.Problems, s.Ends = summed(s.Failures, o.Failures), summed(s.Problems, o.Problems), summed(s.Ends, o.Ends)
	s.Renewals, s.Late = summed(s.Renewals, o.Renewals), summed(s.Late, o.Late)
}

func summed[K comparable](a, b map[K]int64) map[K]int64 {
	sum := make(map[K]int64, len(a)+len(b))
	for _, m := range []map[K]int64{a, b} {
		for k, n := range m {
			sum[k] += n
		}
	}
	return sum
}

// low is the share of its life under which no credential may fall.
const low = 1.0 / 3

type counts struct {
	linked, connected, dials                                   atomic.Int64
	welcomes, credentials, revocations, reconnects, heartbeats atomic.Int64
	disorder                                                   atomic.Int64

	mu             sync.Mutex
	failures       map[string]int64
	problems, ends map[string]int64
	renewals, late map[int]int64
}

func (c *counts) init() {
	c.failures, c.problems, c.ends = map[string]int64{}, map[string]int64{}, map[string]int64{}
	c.renewals, c.late = map[int]int64{}, map[int]int64{}
}

// longestText bounds what is counted by what it said.
const longestText = 120

func (c *counts) failed(err error) {
	text := err.Error()
	c.count(&c.failures, text[:min(len(text), longestText)])
}

func (c *counts) count(in *map[string]int64, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	(*in)[what]++
}

func (c *counts) renewed(group int, left float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewals[group]++
	if left < low {
		c.late[group]++
	}
}

// Stats gives the counts.
func (f *Fleet) Stats() Stats {
	c := &f.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Dials: c.dials.Load(), Failures: maps.Clone(c.failures),
		Welcomes: c.welcomes.Load(), Credentials: c.credentials.Load(), Revocations: c.revocations.Load(),
		Reconnects: c.reconnects.Load(), Heartbeats: c.heartbeats.Load(),
		Problems: maps.Clone(c.problems), Ends: maps.Clone(c.ends), Disorder: c.disorder.Load(),
		Renewals: maps.Clone(c.renewals), Late: maps.Clone(c.late),
	}
}

// samples keeps the first message of a kind, so that what a broker is compared
// with can send the same.
type samples struct {
	mu                  sync.Mutex
	welcome, credential []byte
}

func (s *samples) keep(in *[]byte, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *in == nil {
		*in = append([]byte(nil), b...)
	}
}

// Samples gives a welcome and a credential as they came; nil: none has.
func (f *Fleet) Samples() (welcome, credential []byte) {
	f.sampled.mu.Lock()
	defer f.sampled.mu.Unlock()
	return f.sampled.welcome, f.sampled.credential
}
