package lease

import (
	"errors"
	"hash/maphash"

	"github.com/stokerd/stoker/server/internal/reason"
)

// finding is what the authority said about a lease's subscribers and its
// credential, at one epoch of the lease.
type finding struct {
	epoch    uint32
	verdicts []verdict
	cur      *holding
	revoked  bool
}

// verdict is what the authority said about one subscriber.
type verdict struct {
	sub *Subscription
	ent Entitlement
	err *reason.Error
}

// review is the one way to a credential out of memory: it asks the authority
// about the subscriber (about all of them if only is nil), and hands out the
// credential in force to those who may have it, unless something changed
// meanwhile: then it asks again. It ends by deciding what is next.
func (m *Manager) review(l *lease, only *Subscription) {
	for {
		f := m.look(l, only)
		l.mu.Lock()
		if f.epoch == l.epoch {
			if !l.ended {
				m.apply(l, f)
				m.settle(l)
				m.remind(l, only)
			}
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// look asks the authority, under no lock.
func (m *Manager) look(l *lease, only *Subscription) finding {
	var f finding
	l.mu.Lock()
	f.epoch, f.cur = l.epoch, l.cur
	if only != nil {
		f.verdicts = []verdict{{sub: only}}
	} else {
		f.verdicts = make([]verdict, len(l.subs))
		for i, s := range l.subs {
			f.verdicts[i].sub = s
		}
	}
	l.mu.Unlock()
	for i := range f.verdicts {
		v := &f.verdicts[i]
		v.ent, v.err = m.entitle(v.sub.holder, l.key.grant)
	}
	if f.cur != nil && len(f.verdicts) > 0 {
		f.revoked = m.cfg.Authority.Revoked(f.verdicts[0].sub.holder, l.key.grant, f.cur.ID, f.cur.stamped)
	}
	return f
}

// entitle asks the authority, and refuses what no account can issue.
func (m *Manager) entitle(h Holder, grantID string) (Entitlement, *reason.Error) {
	ent, err := m.cfg.Authority.Entitle(h, grantID)
	if err != nil {
		return Entitlement{}, reasoned(err)
	}
	if m.accounts[ent.Account] == nil {
		return Entitlement{}, reason.New(reason.GrantInvalid,
			"the grant's location names account %q, which this broker does not have; the provider must correct it", ent.Account)
	}
	return ent, nil
}

// reasoned gives an error's reason; an error without one is a fault of the
// broker, told as nothing more.
func reasoned(err error) *reason.Error {
	var e *reason.Error
	if errors.As(err, &e) {
		return e
	}
	return reason.New(reason.Internal, "the broker failed to decide; give the request id to the provider").Because(err)
}

// apply takes a finding of this epoch into the lease and hands out the
// credential in force. The lease is locked.
func (m *Manager) apply(l *lease, f finding) {
	if f.revoked && f.cur == l.cur {
		m.forget(l)
	}
	for i := range f.verdicts {
		if v := &f.verdicts[i]; v.err == nil && !v.sub.closed {
			m.adopt(l, v.ent)
			break
		}
	}
	for i := range f.verdicts {
		v := &f.verdicts[i]
		if v.sub.closed {
			continue
		}
		if m.judge(l, v) {
			m.give(l, v.sub)
		}
	}
}

// adopt takes over today's terms.
func (m *Manager) adopt(l *lease, ent Entitlement) {
	l.name = ent.Grant.Name
	l.account = m.accounts[ent.Account]
	l.stale = l.cur != nil && !l.cur.under(ent)
	if l.permanent && l.refused != m.terms(ent) {
		l.clearTrouble()
	}
}

// terms tells entitlements apart that STS may answer differently.
func (m *Manager) terms(ent Entitlement) uint64 {
	return maphash.Comparable(m.seed, [...]string{ent.Account, ent.PolicyHash})
}

func (l *lease) clearTrouble() {
	l.trouble, l.permanent, l.refused, l.retryAt, l.attempts = nil, false, 0, 0, 0
}

// forget drops a credential that was revoked by itself, and says so to those
// who have it.
func (m *Manager) forget(l *lease) {
	gone := l.cur
	why := reason.New(reason.CredentialRevoked, "the credential was revoked; stop using it, another one follows")
	for _, s := range l.subs {
		if s.have == gone {
			m.recordLoss(l, s, why)
			s.have = nil
			m.deliver(s, Event{Revoked: &Revoked{GrantID: l.key.grant, Grant: l.name, CredentialID: gone.ID, Err: why}})
		}
	}
	l.cur, l.previous, l.stale, l.rejected = nil, gone.ID, false, false
}

// judge records what the authority said about a subscriber, tells it what it
// has lost, and says whether it may be given a credential.
func (m *Manager) judge(l *lease, v *verdict) bool {
	s := v.sub
	s.judged = true
	if v.err == nil {
		s.allowed = true
		if s.refused != nil {
			s.refused, s.told = nil, nil
		}
		m.relocate(s, v.ent.Location.ID)
		return true
	}
	if reason.Transient(v.err) {
		// The authority does not know. Nothing is taken away, nothing given.
		return false
	}
	if s.refused != nil && s.refused.Reason == v.err.Reason {
		return false
	}
	had := s.allowed
	if s.have != nil {
		m.recordLoss(l, s, v.err)
		s.past = l.cur
	}
	s.allowed, s.refused, s.held, s.looking = false, v.err, nil, false
	if had {
		s.have = nil
		m.deliver(s, Event{Revoked: &Revoked{GrantID: l.key.grant, Grant: l.name, Err: v.err}})
	} else {
		m.refuse(l, s, v.err)
	}
	return false
}

// hold puts the lease off because nothing can be decided or issued for now.
func (m *Manager) hold(l *lease, why *reason.Error) {
	now := m.clock.now()
	l.strike()
	l.retryAt = now.add(l.backoff(now, 0))
	l.trouble, l.permanent = why, false
	for _, s := range l.subs {
		m.tell(l, s, why)
	}
}

// give hands the credential in force to a subscriber that the authority has
// just allowed.
func (m *Manager) give(l *lease, s *Subscription) {
	if !l.fits(s, m.clock.now()) {
		return
	}
	cur := l.cur
	if s.held != nil {
		if s.held.ID == cur.ID {
			// The lease's own memory is as good as the audit trail's.
			s.have, s.held, s.looking = cur, nil, false
			m.count.resumed.Add(1)
			return
		}
		if s.held.ID > cur.ID && !cur.bare {
			// Ids grow with time: another broker may have issued a later one,
			// which must not be replaced by this one.
			return
		}
	}
	if cur.bare || s.have == cur || s.past == cur {
		return
	}
	s.have, s.held, s.looking = cur, nil, false
	s.past, s.told, s.ackedAt = nil, nil, 0
	m.deliver(s, Event{Credential: &cur.Credential})
}

// relocate files the subscription under its location.
func (m *Manager) relocate(s *Subscription, locationID string) {
	if s.location == locationID {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index.remove(byLocation, s.location, s)
	s.location = locationID
	m.index.add(byLocation, locationID, s)
}

// remind tells a newcomer of the trouble that the lease is already in.
func (m *Manager) remind(l *lease, s *Subscription) {
	if s != nil && l.trouble != nil && l.phase == resting && !s.closed && !s.looking {
		m.tell(l, s, l.trouble)
	}
}
