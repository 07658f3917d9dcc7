package lease

import "sync"

// crew does jobs in the order given, a bounded number at once, on goroutines
// that exist only while there is work. A storm of ten thousand jobs thus costs
// their descriptions and not their stacks.
type crew struct {
	hands   int // how many work at once
	longest int // how many may wait

	mu      sync.Mutex
	queue   []func()
	working int
	closed  bool
	idle    sync.Cond
}

func (c *crew) init(hands, longest int) {
	c.hands, c.longest = hands, longest
	c.idle.L = &c.mu
}

// do has the job done and says so, or says that it cannot be: too many wait,
// or the crew is closed.
func (c *crew) do(job func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.queue) >= c.longest {
		return false
	}
	c.queue = append(c.queue, job)
	if c.working < c.hands {
		c.working++
		go c.work()
	}
	return true
}

func (c *crew) work() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		job := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.mu.Unlock()
		job()
		c.mu.Lock()
	}
	c.queue = nil
	c.working--
	c.idle.Broadcast()
}

// close refuses further jobs and waits for those it has.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.working > 0 {
		c.idle.Wait()
	}
}
