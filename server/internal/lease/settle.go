package lease

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// repeatAfter is how soon a subscriber is told the same problem again.
const repeatAfter = time.Minute

// settle looks at the lease as it is and puts it where it belongs: into its
// account's queue, or to rest until the next moment that matters. It may be
// called whenever anything changed, and delivers no credential. The lease is
// locked.
func (m *Manager) settle(l *lease) {
	now := m.clock.now()
	switch {
	case l.ended:
	case l.phase == flying:
		m.stand(l, standing{wake: l.notice()})
	case len(l.subs) == 0:
		l.phase, l.lookAt = resting, 0
		m.stand(l, standing{wake: l.lingerAt})
	default:
		m.lookUpHeld(l, now)
		m.settleSupplied(l, now)
	}
}

// settleSupplied settles a lease that has subscribers and no call in flight.
func (m *Manager) settleSupplied(l *lease, now instant) {
	at, wake := l.due(), l.notice()
	if l.lookAt > 0 {
		wake = min(wake, l.lookAt)
	}
	if at > now {
		l.phase = resting
		s := standing{wake: min(at, wake)}
		if l.trouble != nil && at == l.retryAt {
			s.in = &l.account.waiting
		}
		m.stand(l, s)
		return
	}
	if l.phase != ready {
		l.phase, l.dueSince = ready, now
	}
	s := l.turn(now)
	s.wake = wake
	m.stand(l, s)
	if down := m.barred(l.account, now); down != nil {
		for _, s := range l.subs {
			m.tell(l, s, down)
		}
	}
}

// standing is where a lease is to stand.
type standing struct {
	in     *queue  // of its account; nil: none
	key    instant // in there
	danger instant // of a ready one
	wake   instant
}

// stand moves the lease within the queues.
func (m *Manager) stand(l *lease, s standing) {
	m.queues.Lock()
	defer m.queues.Unlock()
	if l.queued != nil && l.queued != s.in {
		l.queued.drop(l)
	}
	l.queued, l.danger = s.in, s.danger
	if s.wake == never {
		m.timers.drop(l)
	} else {
		m.timers.put(l, s.wake)
		if m.timers.head().lease == l {
			m.kick()
		}
	}
	if s.in == nil {
		return
	}
	s.in.put(l, s.key)
	if s.in != &l.account.waiting {
		m.kick()
	}
}

// barred says why due leases of the account have to wait, if it is down and
// not about to be probed.
func (m *Manager) barred(a *account, now instant) *reason.Error {
	m.queues.Lock()
	defer m.queues.Unlock()
	if a.gate.closed && a.gate.probeAt > now {
		return a.gate.cause
	}
	return nil
}

// wake acts on a lease whose next moment has come.
func (m *Manager) wake(l *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := m.clock.now()
	if l.ended {
		return
	}
	if len(l.subs) == 0 && l.phase != flying && l.lingerAt <= now {
		m.end(l)
		return
	}
	if l.notice() <= now {
		l.expiryTold = true
		m.tellExpiry(l)
	}
	m.settle(l)
}

// end forgets a lease that nobody needs. The lease is locked.
func (m *Manager) end(l *lease) {
	l.ended = true
	m.stand(l, standing{wake: never})
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, l.key)
	m.floor = max(m.floor, l.issuedAt)
}

// tellExpiry says to the holders of a credential that it is past its end and
// that no other has come yet.
func (m *Manager) tellExpiry(l *lease) {
	why := l.trouble
	switch {
	case why != nil:
	case l.phase == flying:
		why = reason.New(reason.STSUnavailable, "the STS has not answered yet; the broker waits for it")
	default:
		why = m.queueTrouble(l.account)
	}
	for _, s := range l.subs {
		if s.have == l.cur && s.refused == nil {
			s.told = nil
			m.tell(l, s, why)
		}
	}
}

// queueTrouble says why a due lease of the account is not being issued.
func (m *Manager) queueTrouble(a *account) *reason.Error {
	m.queues.Lock()
	defer m.queues.Unlock()
	if a.gate.closed {
		return a.gate.cause
	}
	return reason.New(reason.STSThrottled, "the renewal waits for its turn in the broker's budget of STS calls")
}

// tell tells a subscriber of trouble, unless it was told the same within the
// last minute.
func (m *Manager) tell(l *lease, s *Subscription, why *reason.Error) {
	now := m.clock.now()
	if !s.eligible() || s.knows(why, now) {
		return
	}
	s.told = &notice{why.Reason, now}
	p := &Problem{GrantID: l.key.grant, Grant: l.name, Err: why}
	if !l.permanent {
		p.RetryAt = m.clock.wallAt(max(l.nextTry(m), now))
	}
	if s.have != nil {
		p.GoodUntil = s.have.Expires
	}
	m.deliver(s, Event{Problem: p})
}

// knows says whether the subscriber was told the same a moment ago.
func (s *Subscription) knows(why *reason.Error, now instant) bool {
	return s.told != nil && s.told.why == why.Reason && now.since(s.told.at) < repeatAfter
}

// nextTry is when the lease is tried again, as far as can be told.
func (l *lease) nextTry(m *Manager) instant {
	m.queues.Lock()
	defer m.queues.Unlock()
	at := l.retryAt
	if l.account.gate.closed {
		at = max(at, l.account.gate.probeAt)
	}
	return at
}

// deliver passes an event on. After Run has returned nothing is.
func (m *Manager) deliver(s *Subscription, e Event) {
	if !m.closed.Load() {
		s.to.Deliver(e)
	}
}

// Backoff after failures: full jitter under a bound that doubles from the
// first to the highest, and shrinks as the credential's end nears.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	// throttledBackoff bounds it after throttling: the account's pace is what
	// slows down then.
	throttledBackoff = 8 * time.Second
	// dryBackoff bounds it for those who have nothing.
	dryBackoff = 15 * time.Second
	// leastBackoff keeps a lucky draw from being no wait at all.
	leastBackoff = 100 * time.Millisecond
)

// strike counts an attempt that brought nothing.
func (l *lease) strike() { l.attempts = min(l.attempts, math.MaxUint8-1) + 1 }

// backoff draws the wait after the failure just counted. highest bounds it
// further if it is not 0.
func (l *lease) backoff(now instant, highest time.Duration) time.Duration {
	bound := lastBackoff
	switch {
	case l.cur == nil || l.cur.end <= now:
		bound = dryBackoff
	default:
		bound = min(bound, max(firstBackoff, l.cur.end.since(now)/8))
	}
	if highest > 0 {
		bound = min(bound, highest)
	}
	bound = min(bound, firstBackoff<<min(l.attempts-1, 6))
	return max(leastBackoff, time.Duration(rand.Float64()*float64(bound)))
}
