package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// tick is how often the wall clock is compared at least.
	tick = 10 * time.Second
	// batch bounds what is done for one account, and how many timers fire,
	// before the others have their turn.
	batch = 256
)

// Run serves all leases until ctx ends. It then begins no further call, waits
// up to Config.Drain for those in flight, whose credentials are still
// delivered, and cuts the rest off. Once it has returned nothing is delivered.
// The error says that calls had to be cut off. Run may be called once.
func (m *Manager) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("the lease manager runs already")
	}
	keeping, stopKeeping := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		m.flights.Keep(keeping)
	}()
	defer func() {
		stopKeeping()
		<-kept
	}()
	timer := time.NewTimer(tick)
	defer timer.Stop()
	m.kick()
	for {
		select {
		case <-ctx.Done():
			return m.stop()
		case <-m.kicked:
		case <-timer.C:
		}
		m.observe()
		m.fire()
		if wait := m.dispatch(); wait > 0 {
			timer.Reset(wait)
		} else {
			m.kick()
		}
	}
}

// observe notices steps of the wall clock. After one back, the expiries that
// were recorded are nearer than they look.
func (m *Manager) observe() {
	moved := m.clock.observe(m.cfg.Log)
	if moved >= 0 {
		return
	}
	m.queues.Lock()
	defer m.queues.Unlock()
	for _, a := range m.order {
		a.behind -= moved
	}
}

// fire wakes the leases whose time has come, a batch at a time.
func (m *Manager) fire() {
	var woken [batch]*lease
	now, n := m.clock.now(), 0
	m.queues.Lock()
	for n < batch && m.timers.len() > 0 && m.timers.head().at <= now {
		woken[n] = m.timers.head().lease
		m.timers.drop(woken[n])
		n++
	}
	m.queues.Unlock()
	for _, l := range woken[:n] {
		m.wake(l)
	}
}

// dispatch begins what may begin now and gives how long there is nothing more
// to do; 0 or less if there is more now.
func (m *Manager) dispatch() time.Duration {
	wait := tick
	for _, a := range m.order {
		wait = min(wait, m.serve(a))
	}
	m.queues.Lock()
	defer m.queues.Unlock()
	if m.timers.len() > 0 {
		wait = min(wait, m.timers.head().at.since(m.clock.now()))
	}
	return wait
}

// serve begins calls for the account's most urgent leases as far as its gate,
// its budget and its bound allow. It gives how long to wait before the next.
func (m *Manager) serve(a *account) time.Duration {
	for range batch {
		l, wait := m.next(a)
		if l == nil {
			return wait
		}
		p, ok := m.prepare(l, a)
		if !ok {
			continue
		}
		m.calls.Add(1)
		m.flights.Do(flight{l, &p})
	}
	return 0
}

// next takes the most urgent lease out of the account's queue if a call for it
// could be made now, else it says how long that takes. Only the scheduler
// spends tokens, so the token seen here is there when the lease is prepared.
func (m *Manager) next(a *account) (*lease, time.Duration) {
	m.queues.Lock()
	defer m.queues.Unlock()
	switch {
	case a.ready.len()+a.dry.len() == 0, a.full(), a.gathering > 0:
		// Whoever changes that kicks.
		return nil, tick
	}
	if wait := max(a.gate.wait(m.clock.now()), a.pace.wait(m.clock.steady())); wait > 0 {
		return nil, wait
	}
	l := a.pop(m.clock.now())
	l.queued = nil
	return l, 0
}

// dryShare is the part of the calls, one in so many, that leases which have
// run dry get while others are about to.
const dryShare = 10

// pop takes the most urgent lease out of the queues, one of which has some.
// Whoever is in danger of running dry goes first, the earliest expiry before
// the others: that can still be prevented, so that after an outage nobody is
// lost who can be saved. Then come those who have run dry, then renewals in
// good time. Where the budget is too small for good the dry get their share.
func (a *account) pop(now instant) *lease {
	if a.dry.len() == 0 {
		a.passed = 0
	}
	from := &a.ready
	if a.dry.len() > 0 && (a.ready.len() == 0 || a.ready.head().lease.danger > now || a.passed >= dryShare-1) {
		from, a.passed = &a.dry, 0
	} else {
		a.passed++
	}
	l := from.head().lease
	from.drop(l)
	return l
}

// depart spends the token and the probe that a call costs.
func (m *Manager) depart(a *account) {
	m.queues.Lock()
	defer m.queues.Unlock()
	a.flying++
	a.pace.take(m.clock.steady())
	if a.gate.closed {
		a.gate.schedule(m.clock.now())
	}
}

// stop ends all work, see Run.
func (m *Manager) stop() error {
	close(m.stopping)
	landed := make(chan struct{})
	go func() {
		m.calls.Wait()
		m.records.close()
		close(landed)
	}()
	var err error
	deadline := time.NewTimer(m.cfg.Drain)
	defer deadline.Stop()
	select {
	case <-landed:
	case <-deadline.C:
		err = fmt.Errorf("%d calls to STS were cut off after %s", m.inFlight(), m.cfg.Drain)
	}
	m.cancel()
	m.seal()
	close(m.done)
	// Whatever is left works under a context that has ended.
	<-landed
	m.lookups.close()
	return err
}

// inFlight counts the calls that are not home.
func (m *Manager) inFlight() int {
	m.queues.Lock()
	defer m.queues.Unlock()
	n := 0
	for _, a := range m.order {
		n += a.flying + a.landed
	}
	return n
}

// seal makes sure that nothing more is delivered: after it has held each
// lease's lock once, whoever delivers has seen that the manager is closed.
func (m *Manager) seal() {
	m.closed.Store(true)
	for _, l := range m.all() {
		l.mu.Lock()
		l.mu.Unlock() //nolint:staticcheck // An empty critical section is the barrier.
	}
}
