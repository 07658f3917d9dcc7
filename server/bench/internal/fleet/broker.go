package fleet

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// broker is one address with how many connections lead there, those being made
// included.
type broker struct {
	address string
	linked  atomic.Int64
}

// order gives the brokers as a balancer would try them, fewest connections
// first.
func (f *Fleet) order() []*broker {
	if len(f.brokers) == 1 {
		return f.brokers
	}
	type loaded struct {
		*broker
		n int64
	}
	all := make([]loaded, len(f.brokers))
	for i, b := range f.brokers {
		all[i] = loaded{b, b.linked.Load()}
	}
	slices.SortStableFunc(all, func(a, b loaded) int { return cmp.Compare(a.n, b.n) })
	ordered := make([]*broker, len(all))
	for i, l := range all {
		ordered[i] = l.broker
	}
	return ordered
}

// Loads gives the number of connections to each broker, in their order.
func (f *Fleet) Loads() []int {
	loads := make([]int, len(f.brokers))
	for i, b := range f.brokers {
		loads[i] = int(b.linked.Load())
	}
	return loads
}
