package lease

import (
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
)

// longestRetryAfter bounds what STS may ask for.
const longestRetryAfter = 5 * time.Minute

// fail takes a call that brought nothing into the lease and its account.
func (m *Manager) fail(l *lease, p plan, why *reason.Error, kind issuer.Kind, wait time.Duration) {
	if m.ctx.Err() != nil {
		// The manager cut the call off itself.
		l.mu.Lock()
		defer l.mu.Unlock()
		l.phase = resting
		m.settle(l)
		return
	}
	m.countFailure(why)
	switch kind {
	case issuer.Permanent:
		m.cfg.Log.Warn("STS refused a credential for good", "account", p.account.name, "grant", l.key.grant, "agent", l.key.agent, "error", why)
		m.answered(p.account)
		m.failForGood(l, p, why)
	case issuer.Throttled:
		m.throttled(p)
		m.answered(p.account)
		m.failForNow(l, why, throttledBackoff, wait)
	default:
		m.cfg.Log.Warn("a credential could not be issued", "account", p.account.name, "grant", l.key.grant, "agent", l.key.agent, "error", why)
		shut := m.failed(l, p.account, why)
		m.failForNow(l, why, 0, wait)
		if shut {
			m.tellQueue(p.account, why)
		}
	}
}

// failForGood stops the lease until something changes, unless that happened
// while the call was in flight.
func (m *Manager) failForGood(l *lease, p plan, why *reason.Error) {
	rec := refusal(p.holder, l.key.grant, why)
	rec.Grant, rec.Account, rec.PolicyHash = p.ent.Grant.Name, p.account.name, p.ent.PolicyHash
	rec.SessionName = p.request.SessionName
	m.write(rec)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = resting
	if l.epoch == p.epoch {
		l.trouble, l.permanent, l.refused = why, true, m.terms(p.ent)
		l.retryAt = m.clock.now().add(m.cfg.Cooldown)
		for _, s := range l.subs {
			m.tell(l, s, why)
		}
	}
	m.settle(l)
}

// failForNow lets the lease try again later.
func (m *Manager) failForNow(l *lease, why *reason.Error, highest, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := m.clock.now()
	l.phase = resting
	l.strike()
	l.trouble, l.permanent = why, false
	l.retryAt = now.add(max(l.backoff(now, highest), min(wait, longestRetryAfter)))
	m.settle(l)
	for _, s := range l.subs {
		m.tell(l, s, why)
	}
}

// failed counts a failure of the account and says whether it is down.
func (m *Manager) failed(l *lease, a *account, why *reason.Error) bool {
	m.queues.Lock()
	defer m.queues.Unlock()
	return a.gate.failed(l, why, m.clock.now())
}

// throttled slows the account down.
func (m *Manager) throttled(p plan) {
	m.queues.Lock()
	defer m.queues.Unlock()
	p.account.pace.throttled(p.steady, m.clock.steady())
}

// answered notes that the account works. If it did not before, all leases that
// wait after a failure are due again, so that they are served in their order
// and not in that of their backoffs. No call begins until all of them are in
// the queue.
func (m *Manager) answered(a *account) {
	m.queues.Lock()
	if !a.gate.answered() {
		m.queues.Unlock()
		return
	}
	a.gathering++
	waiting := leasesOf(&a.waiting)
	m.queues.Unlock()
	for _, l := range waiting {
		l.mu.Lock()
		if !l.permanent {
			l.retryAt = 0
		}
		m.settle(l)
		l.mu.Unlock()
	}
	m.queues.Lock()
	a.gathering--
	m.queues.Unlock()
	m.kick()
}

// tellQueue tells those who wait in the queue of an account that is down.
func (m *Manager) tellQueue(a *account, why *reason.Error) {
	m.queues.Lock()
	waiting := append(leasesOf(&a.ready), leasesOf(&a.dry)...)
	m.queues.Unlock()
	for _, l := range waiting {
		l.mu.Lock()
		if l.phase == ready {
			for _, s := range l.subs {
				m.tell(l, s, why)
			}
		}
		l.mu.Unlock()
	}
}

func leasesOf(q *queue) []*lease {
	out := make([]*lease, len(q.items))
	for i, e := range q.items {
		out[i] = e.lease
	}
	return out
}
