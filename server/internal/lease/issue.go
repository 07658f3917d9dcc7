package lease

import (
	"context"
	"errors"
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
)

// errMoot says that a credential came too late: what it was issued for is not
// so any more.
var errMoot = errors.New("the entitlement changed during the call to STS")

// flight is one call to STS, and what becomes of its answer.
type flight struct {
	lease *lease
	plan  *plan
}

// fly makes one call to STS and brings its result home. It runs on a goroutine
// of its own under the manager's context.
func (m *Manager) fly(f flight) {
	l, p := f.lease, *f.plan
	defer m.calls.Done()
	defer m.home(p.account)
	wall := m.clock.wall()
	ctx, traced := m.trace(p)
	h, kind, wait, why := m.ask(ctx, p)
	m.land(p.account)
	if why != nil {
		traced(why)
		m.fail(l, p, why, kind, wait)
		return
	}
	m.measure(p, wall, h)
	if h.Expires.After(p.holder.Certificate.NotAfter) {
		traced(errMoot)
		m.discard(l, p, "the STS's clock is ahead, and the credential would outlive the certificate")
		return
	}
	err := m.record(ctx, l, &p, h)
	traced(err)
	switch {
	case errors.Is(err, errMoot):
		m.discard(l, p, "no longer allowed as it was asked for")
	case err != nil:
		m.fail(l, p, reasoned(err), issuer.Transient, 0)
	default:
		m.answered(p.account)
		m.release(l, p, h)
	}
}

// land frees the call's place: STS has answered. What is left is to record the
// answer, and many records make one commit.
func (m *Manager) land(a *account) {
	m.queues.Lock()
	full := a.full()
	a.flying--
	a.landed++
	freed := full && !a.full()
	m.queues.Unlock()
	if freed {
		m.kick()
	}
}

// home ends what landed.
func (m *Manager) home(a *account) {
	m.queues.Lock()
	full := a.full()
	a.landed--
	freed := full && !a.full()
	m.queues.Unlock()
	if freed {
		m.kick()
	}
}

// ask calls STS. It gives a holding, or why there is none.
func (m *Manager) ask(ctx context.Context, p plan) (h *holding, kind issuer.Kind, wait time.Duration, why *reason.Error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.CallTimeout)
	defer cancel()
	m.count.calls.Add(1)
	began := m.clock.steady()
	cred, err := p.account.issuer.Issue(ctx, p.request)
	if m.cfg.Observer != nil {
		m.cfg.Observer.Called(p.account.name, m.clock.steady().Sub(began), cred.PackedPolicySize, err)
	}
	if err != nil {
		kind, wait, why = explain(err)
		return nil, kind, wait, why
	}
	life := p.request.Duration
	// Some STS grant less than was asked for, and a broker's clock that is
	// ahead looks the same: believing it costs calls, not believing it would
	// leave agents dry. Less than the account's shortest lifetime is a clock
	// for certain; then the duration counts, which needs none.
	if less := cred.Expires.Sub(cred.IssuedAt).Truncate(time.Second); less < life && less >= p.account.shortest {
		life = less
	}
	h = &holding{
		Credential: Credential{
			ID: p.id, GrantID: p.ent.Grant.ID, Grant: p.ent.Grant.Name,
			AccessKeyID: cred.AccessKeyID, SecretAccessKey: cred.SecretAccessKey, SessionToken: cred.SessionToken,
			IssuedAt: cred.IssuedAt.UTC(), Expires: cred.Expires.UTC(),
			Location: p.ent.Location, Prefix: p.ent.Grant.Prefix, Access: p.ent.Grant.Access,
			PolicyHash: p.ent.PolicyHash, SessionName: p.request.SessionName,
		},
		account: p.account.name,
		stamped: cred.IssuedAt,
		packed:  cred.PackedPolicySize,
	}
	h.schedule(p.began, life, life)
	return h, "", 0, nil
}

// measure notes how late the account's credentials end.
func (m *Manager) measure(p plan, asked time.Time, h *holding) {
	m.queues.Lock()
	defer m.queues.Unlock()
	p.account.late = max(0, h.Expires.Sub(asked.Add(p.request.Duration)))
	p.account.behind = p.account.late
}

// explain turns a failure of the issuer into what subscribers are told.
func explain(err error) (issuer.Kind, time.Duration, *reason.Error) {
	var failure *issuer.Error
	if !errors.As(err, &failure) {
		return issuer.Transient, 0, reason.New(reason.STSUnavailable, "the STS cannot be reached or fails; the broker tries again").Because(err)
	}
	switch failure.Kind {
	case issuer.Permanent:
		return failure.Kind, 0, reason.New(reason.STSRefused, "the STS refused the request; the provider must correct the account or the grant").Because(err)
	case issuer.Throttled:
		return failure.Kind, failure.RetryAfter, reason.New(reason.STSThrottled, "the STS is throttling the broker; the broker tries again").Because(err)
	default:
		return issuer.Transient, failure.RetryAfter, reason.New(reason.STSUnavailable, "the STS cannot be reached or fails; the broker tries again").Because(err)
	}
}

// release hands a recorded credential to those who may have it at this moment.
func (m *Manager) release(l *lease, p plan, h *holding) {
	for {
		f := m.look(l, nil)
		holder := p.holder
		if len(f.verdicts) > 0 {
			holder = f.verdicts[0].sub.holder
		}
		revoked := m.cfg.Authority.Revoked(holder, l.key.grant, h.ID, h.stamped)
		l.mu.Lock()
		if f.epoch != l.epoch {
			l.mu.Unlock()
			continue
		}
		why := moot(f.verdicts, h, revoked)
		if why == "" {
			m.install(l, h, p.renewal)
		}
		l.phase = resting
		m.apply(l, f)
		if why != "" {
			m.discardLocked(l, why)
		}
		m.settle(l)
		l.mu.Unlock()
		return
	}
}

// moot says why nobody may have the credential, or gives "".
func moot(verdicts []verdict, h *holding, revoked bool) string {
	if revoked {
		return "revoked during the call to STS"
	}
	allowed := len(verdicts) == 0
	for i := range verdicts {
		v := &verdicts[i]
		if v.err != nil || v.sub.closed {
			continue
		}
		if !h.under(v.ent) {
			return "the grant changed during the call to STS"
		}
		allowed = true
	}
	if !allowed {
		return "nobody may have it any more"
	}
	return ""
}

// install makes the credential the one in force.
func (m *Manager) install(l *lease, h *holding, renewal bool) {
	h.IssuedAt = l.later(h.IssuedAt)
	if l.cur != nil {
		l.previous = l.cur.ID
	}
	l.cur = h
	l.stale, l.rejected, l.expiryTold = false, false, false
	l.clearTrouble()
	if renewal {
		m.count.renewed.Add(1)
	} else {
		m.count.issued.Add(1)
	}
}

// later gives the issue time that the lease tells of: the clock's, or just
// after the last one where the clock has stepped back.
func (l *lease) later(t time.Time) time.Time {
	if t.UnixNano() <= l.issuedAt {
		t = time.Unix(0, l.issuedAt).Add(time.Millisecond).UTC()
	}
	l.issuedAt = t.UnixNano()
	return t
}

// discard drops a credential that was issued and must not be released, and
// starts over.
func (m *Manager) discard(l *lease, p plan, why string) {
	m.answered(p.account)
	l.mu.Lock()
	l.phase = resting
	m.discardLocked(l, why)
	l.mu.Unlock()
	m.review(l, nil)
}

// discardLocked lets the next attempt begin at once, and those after it after
// growing waits: an entitlement that never holds still must not become a storm
// of calls.
func (m *Manager) discardLocked(l *lease, why string) {
	m.count.discarded.Add(1)
	m.cfg.Log.Info("an issued credential was discarded", "grant", l.key.grant, "agent", l.key.agent, "why", why)
	l.strike()
	l.retryAt = 0
	if l.attempts > 1 {
		now := m.clock.now()
		l.retryAt = now.add(l.backoff(now, 0))
	}
}
