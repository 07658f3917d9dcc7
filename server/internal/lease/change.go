package lease

import (
	"slices"

	"github.com/stokerd/stoker/server/internal/storage"
)

// target is what a change concerns.
type target struct {
	// The subscriptions filed under an id; all of them if everywhere is set.
	index      int
	id         string
	everywhere bool
	// Of those, only leases that match; nil means all.
	match func(*lease) bool
}

// Changed looks again at every lease that the changes concern: who is no
// longer allowed is told, who is allowed on other terms gets a credential
// under those, a revoked credential is replaced, and what STS or the authority
// refused is tried again. When it returns nothing more is delivered that the
// changes forbid. It costs what is concerned, not what there is.
//
// The authority must show the changes before the call. Observers of the
// directory are called at the right moment.
func (m *Manager) Changed(changes []storage.Change) {
	concerned := make(map[*lease]struct{})
	for _, c := range changes {
		if t, ok := m.target(c); ok {
			m.collect(t, concerned)
		}
	}
	for l := range concerned {
		m.reassess(l)
	}
}

// Recheck looks again at every lease: after a new revocation list, or when the
// reason for refusals of STS was put right.
func (m *Manager) Recheck() {
	for _, l := range m.all() {
		m.reassess(l)
	}
}

// target resolves a change.
func (m *Manager) target(c storage.Change) (target, bool) {
	switch c.Kind {
	case storage.KindCertificate:
		// Most changes of certificates are of newly issued ones.
		serial, revoked := m.cfg.Authority.RevokedSerial(c.ID)
		return target{index: bySerial, id: serial}, revoked && serial != ""
	case storage.KindRevocation:
		r, ok := m.cfg.Authority.Revocation(c.ID)
		if !ok {
			// It was lifted or has expired. Whom it concerned is not known any
			// more, but it can only have refused.
			return target{everywhere: true, match: (*lease).refusesSomebody}, true
		}
		return revocationTarget(r)
	default:
		kind, ok := kindIndex[c.Kind]
		return target{index: kind, id: c.ID}, ok && c.ID != ""
	}
}

// revocationTarget says whom a revocation concerns. TargetKind is spelled like
// a kind of entity, or is credential.
func revocationTarget(r storage.Revocation) (target, bool) {
	if r.TargetKind == "credential" {
		return target{index: byTenant, id: r.TenantID, match: func(l *lease) bool { return l.concerns(r.TargetID) }}, true
	}
	kind, ok := kindIndex[storage.Kind(r.TargetKind)]
	return target{index: kind, id: r.TargetID}, ok
}

// collect adds the leases that the target concerns.
func (m *Manager) collect(t target, into map[*lease]struct{}) {
	var found []*lease
	if t.everywhere {
		found = m.all()
	} else {
		m.mu.RLock()
		for _, s := range m.index[t.index][t.id] {
			found = append(found, s.lease)
		}
		m.mu.RUnlock()
	}
	for _, l := range found {
		if t.match != nil {
			l.mu.Lock()
			matches := t.match(l)
			l.mu.Unlock()
			if !matches {
				continue
			}
		}
		into[l] = struct{}{}
	}
}

// refusesSomebody says whether a lifted revocation may help.
func (l *lease) refusesSomebody() bool {
	return slices.ContainsFunc(l.subs, func(s *Subscription) bool { return s.refused != nil })
}

// concerns says whether the credential is in force, or about to be resumed.
func (l *lease) concerns(credentialID string) bool {
	return l.cur != nil && l.cur.ID == credentialID ||
		slices.ContainsFunc(l.subs, func(s *Subscription) bool { return s.held != nil && s.held.ID == credentialID })
}

// all lists the leases of this moment.
func (m *Manager) all() []*lease {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*lease, 0, len(m.leases))
	for _, l := range m.leases {
		out = append(out, l)
	}
	return out
}

// reassess asks the authority anew about everybody who is supplied by the
// lease. What was about to be delivered is asked about again, too.
func (m *Manager) reassess(l *lease) {
	l.mu.Lock()
	l.epoch++
	l.clearTrouble()
	for _, s := range l.subs {
		s.short = false
	}
	l.mu.Unlock()
	m.review(l, nil)
}
