package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// lookUpHeld has the history asked about credentials that subscribers say they
// hold. The lease is locked.
func (m *Manager) lookUpHeld(l *lease, now instant) {
	if l.lookAt > now {
		return
	}
	l.lookAt = 0
	for _, s := range l.subs {
		if s.held == nil || s.looking || !s.allowed {
			continue
		}
		s.looking = true
		if !m.lookups.do(func() { m.lookUp(l, s) }) {
			// Too many wait. A new credential is the slower answer, and right.
			s.held, s.looking = nil, false
		}
	}
}

// lookUp asks the history about the credential that the subscriber holds and
// decides whether it is resumed. It runs on the crew, under no lock.
func (m *Manager) lookUp(l *lease, s *Subscription) {
	l.mu.Lock()
	held := s.held
	if s.closed || held == nil {
		s.looking = false
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.AuditTimeout)
	rec, err := m.cfg.History.FindIssue(ctx, held.ID)
	cancel()
	if err != nil && !errors.Is(err, storage.ErrNotFound) && m.lookAgain(l, s, held, err) {
		return
	}
	for {
		l.mu.Lock()
		epoch := l.epoch
		l.mu.Unlock()
		h, why := m.resumable(s.holder, l.key.grant, held.ID, rec, err)
		l.mu.Lock()
		if l.epoch != epoch {
			l.mu.Unlock()
			continue
		}
		if !s.closed && s.held == held {
			m.decide(l, s, h, why)
		}
		l.mu.Unlock()
		break
	}
	m.review(l, s)
}

// decide ends the wait for the history. The lease is locked.
func (m *Manager) decide(l *lease, s *Subscription, h *holding, why string) {
	s.looking = false
	if h == nil {
		s.held = nil
		m.count.unresumed.Add(1)
		m.cfg.Log.Debug("a held credential was not accepted", "grant", l.key.grant, "agent", l.key.agent, "why", why)
		return
	}
	if l.cur == nil || l.cur.stamped.Before(h.stamped) && l.cur.ID != h.ID {
		if l.cur != nil {
			l.previous = l.cur.ID
		}
		l.cur = h
		l.stale, l.rejected, l.expiryTold = false, false, false
		l.issuedAt = max(l.issuedAt, h.IssuedAt.UnixNano())
	}
	if l.cur.ID == s.held.ID && l.fits(s, m.clock.now()) {
		s.have = l.cur
		m.count.resumed.Add(1)
	}
	s.held = nil
}

// lookAgain plans another look-up after the history could not be asked, and
// says whether it did: not if the holder would run low before that, by its own
// word, which gets it nothing but a credential that it may have.
func (m *Manager) lookAgain(l *lease, s *Subscription, held *Held, cause error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.looking = false
	if s.closed || s.held != held {
		return true
	}
	m.cfg.Log.Warn("the history of a held credential could not be read", "grant", l.key.grant, "agent", l.key.agent, "error", cause)
	if m.ctx.Err() != nil {
		return true
	}
	now := m.clock.now()
	if held.Expires.Sub(m.clock.wall()) < m.lowWater(l) {
		return false
	}
	l.strike()
	l.lookAt = now.add(l.backoff(now, 0))
	why := reason.New(reason.StorageUnavailable, "the broker cannot read its records of the credential that is held; it tries again").Because(cause)
	if !s.knows(why, now) {
		s.told = &notice{why.Reason, now}
		m.deliver(s, Event{Problem: &Problem{GrantID: l.key.grant, Grant: l.name, Err: why, RetryAt: m.clock.wallAt(l.lookAt)}})
	}
	m.settle(l)
	return true
}

// lowWater is how little life must be left in a held credential for the broker
// to stop waiting for the history.
func (m *Manager) lowWater(l *lease) time.Duration { return l.account.longest / 3 }

// resumable says whether a held credential can be accepted on the strength of
// its record, and makes the holding if so. It believes nothing that the agent
// said.
func (m *Manager) resumable(h Holder, grantID, id string, rec storage.AuditRecord, missing error) (*holding, string) {
	if missing != nil {
		return nil, fmt.Sprintf("its record cannot be had: %v", missing)
	}
	ent, refused := m.entitle(h, grantID)
	if refused != nil {
		return nil, "the grant does not allow it: " + refused.Error()
	}
	issued, err := time.Parse(time.RFC3339Nano, rec.Detail[detailIssuedAt])
	if err != nil {
		issued = rec.Time
	}
	life, err := time.ParseDuration(rec.Detail[detailLifetime])
	if err != nil {
		life = rec.Expires.Sub(issued)
	}
	_, behind := m.lateness(m.accounts[ent.Account])
	now := m.clock.wall().Add(behind)
	switch {
	case rec.Event != string(audit.CredentialIssued) && rec.Event != string(audit.CredentialRenewed), rec.CredentialID != id:
		return nil, "the record is of something else"
	case holderKey(rec) != keyOf(h, grantID), rec.TenantID != h.TenantID:
		return nil, "it was issued to another holder or under another grant"
	case rec.PolicyHash != ent.PolicyHash:
		return nil, "the grant's policy is another one today"
	case rec.Account != ent.Account, rec.Detail[detailLocation] != describe(ent.Location):
		return nil, "the grant's location is another one today"
	case !rec.Expires.After(now) || life <= 0:
		return nil, "it has expired"
	case rec.Expires.After(h.Certificate.NotAfter):
		return nil, "it outlives the certificate"
	case m.cfg.Authority.Revoked(h, grantID, id, issued):
		return nil, "it was revoked"
	}
	out := &holding{
		Credential: Credential{
			ID: id, GrantID: grantID, Grant: ent.Grant.Name, AccessKeyID: rec.AccessKeyID,
			IssuedAt: issued.UTC(), Expires: rec.Expires.UTC(),
			Location: ent.Location, Prefix: ent.Grant.Prefix, Access: ent.Grant.Access,
			PolicyHash: rec.PolicyHash, SessionName: rec.SessionName,
		},
		account: rec.Account, stamped: issued, bare: true,
	}
	out.schedule(m.clock.now(), life, min(life, rec.Expires.Sub(now)))
	return out, ""
}

// holderKey is the key of the lease that a record of an issue was written for.
func holderKey(rec storage.AuditRecord) key {
	return keyOf(Holder{AgentID: rec.AgentID, UserID: rec.UserID, Actor: rec.Actor, Purpose: rec.Detail[DetailPurpose]}, rec.GrantID)
}
