package enrollment

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// crowdInterval is how often the refusals of strangers that were not
	// recorded one by one are recorded in sum, and crowdRecords how many are
	// recorded one by one in each such time.
	crowdInterval = time.Minute
	crowdRecords  = 60
	// crowdAddresses bounds how many addresses of those in a sum are told apart
	// and counted, crowdNamed how many are named.
	crowdAddresses = 10_000
	crowdNamed     = 10
	// summaryTimeout bounds the record of a sum.
	summaryTimeout = 10 * time.Second
)

// crowd bounds what strangers can write into the audit trail. The first
// refusals of each minute are recorded whole; the others are counted, with the
// addresses that they came from, and the count is recorded at the minute's end.
type crowd struct {
	summarize func(context.Context, count)

	mu       sync.Mutex
	began    time.Time
	recorded int
	count    count
	timer    *time.Timer
	closed   bool
	writing  sync.WaitGroup
}

// count is a sum of refusals.
type count struct {
	total       int
	first, last time.Time
	addresses   map[string]int
	more        bool // there were more addresses than are told apart
	reasons     map[string]int
}

func newCrowd(summarize func(context.Context, count)) *crowd { return &crowd{summarize: summarize} }

// admit says whether to record the refusal by itself. If not, it is counted.
func (c *crowd) admit(peer, why string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.began) >= crowdInterval {
		c.began, c.recorded = now, 0
	}
	if c.recorded < crowdRecords || c.closed {
		c.recorded++
		return true
	}
	if c.count.total == 0 {
		c.count = count{first: now, addresses: map[string]int{}, reasons: map[string]int{}}
		c.timer = time.AfterFunc(crowdInterval-now.Sub(c.began), c.flush)
	}
	c.count.add(host(peer), why, now)
	return false
}

func (s *count) add(address, why string, now time.Time) {
	s.total++
	s.last = now
	s.reasons[why]++
	if _, known := s.addresses[address]; known || len(s.addresses) < crowdAddresses {
		s.addresses[address]++
	} else {
		s.more = true
	}
}

// detail is what the record of the sum says: how many, since when until when,
// from how many addresses, and which of them most.
func (s count) detail() map[string]string {
	detail := map[string]string{
		"unrecorded": strconv.Itoa(s.total),
		"first":      s.first.UTC().Format(time.RFC3339Nano), "last": s.last.UTC().Format(time.RFC3339Nano),
		"addresses": strconv.Itoa(len(s.addresses)),
	}
	if s.more {
		detail["addresses"] += " or more"
	}
	for why, n := range s.reasons {
		detail["reason."+why] = strconv.Itoa(n)
	}
	for _, address := range s.busiest() {
		detail["address."+address] = strconv.Itoa(s.addresses[address])
	}
	return detail
}

// busiest are the addresses that were refused most often.
func (s count) busiest() []string {
	all := make([]string, 0, len(s.addresses))
	for address := range s.addresses {
		all = append(all, address)
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.addresses[b], s.addresses[a]), cmp.Compare(a, b))
	})
	return all[:min(len(all), crowdNamed)]
}

// flush records the sum at the minute's end.
func (c *crowd) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), summaryTimeout)
	defer cancel()
	c.mu.Lock()
	sum := c.take()
	if sum.total > 0 {
		c.writing.Add(1)
		defer c.writing.Done()
	}
	c.mu.Unlock()
	if sum.total > 0 {
		c.summarize(ctx, sum)
	}
}

// take ends the sum. mu is held.
func (c *crowd) take() count {
	sum := c.count
	c.count = count{}
	return sum
}

// close records what is left, and waits for what is being recorded.
func (c *crowd) close(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	sum := c.take()
	c.mu.Unlock()
	if sum.total > 0 {
		c.summarize(ctx, sum)
	}
	c.writing.Wait()
}
