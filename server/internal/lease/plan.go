package lease

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
)

// certificateMargin is how long before the certificate's end a credential is
// to end, for the time that passes between asking for a lifetime and STS's
// beginning to count it. What an account was late last time is added.
const certificateMargin = 5 * time.Second

// plan is what one call to STS is to bring.
type plan struct {
	account *account
	// holder is the one of the subscribers whose certificate ends first: the
	// credential is recorded as issued to it, and bounded by it.
	holder  Holder
	ent     Entitlement
	request issuer.Request
	id      string
	// renewal: the lease has a credential already.
	renewal bool
	// epoch is the lease's when the plan was made.
	epoch uint32
	// began and steady are when, on either clock.
	began  instant
	steady time.Time
	// waited is how long the lease stood in the queue, causes has the calls
	// that wait for it.
	waited time.Duration
	causes []context.Context
	// down is set instead of all that where nothing can be issued for anybody.
	down *reason.Error
}

// prepare turns a lease that has come to the head of its account's queue into
// a plan, if a call is still needed and allowed. Only the scheduler calls it.
func (m *Manager) prepare(l *lease, a *account) (plan, bool) {
	var down *reason.Error
	if err := m.cfg.Trail.Healthy(); err != nil {
		// What cannot be recorded is not asked for.
		down = auditTrouble(err)
	}
	for {
		f := m.look(l, nil)
		l.mu.Lock()
		if f.epoch == l.epoch {
			p, ok := m.take(l, a, f, down)
			l.mu.Unlock()
			if p.down != nil && m.failed(l, a, down) {
				m.tellQueue(a, down)
			}
			return p, ok
		}
		l.mu.Unlock()
	}
}

// take makes the plan of a lease that has left the queue, and lets the lease
// go on its way: into flight, or to where settle puts it. The lease is locked.
func (m *Manager) take(l *lease, a *account, f finding, down *reason.Error) (plan, bool) {
	if l.ended {
		return plan{}, false
	}
	l.phase = resting
	m.apply(l, f)
	p, ok := plan{}, false
	if l.due() <= m.clock.now() {
		p, ok = m.plan(l, a, f.verdicts, down)
	}
	if ok {
		l.phase = flying
		m.depart(a)
	}
	m.settle(l)
	return p, ok
}

// plan makes the plan of a lease that is due, or says that there is none.
func (m *Manager) plan(l *lease, a *account, verdicts []verdict, down *reason.Error) (plan, bool) {
	p := plan{account: a, epoch: l.epoch, began: m.clock.now(), steady: m.clock.steady(), renewal: l.cur != nil || l.previous != ""}
	unsure := m.bound(l, &p, verdicts)
	switch {
	case p.request.Duration == 0 && unsure != nil:
		m.hold(l, unsure)
		return plan{}, false
	case p.request.Duration == 0, l.account != a:
		return plan{}, false
	case down != nil:
		m.hold(l, down)
		return plan{down: down}, false
	}
	id, err := uuid.NewV7()
	if err != nil {
		m.hold(l, reason.New(reason.Internal, "no random id can be made; the broker tries again").Because(err))
		return plan{}, false
	}
	p.id = id.String()
	p.waited, p.causes = max(0, p.began.since(l.dueSince)), m.causes(l)
	p.request.SessionName, p.request.Policy, p.request.Tags = sessionName(id, p.holder.Purpose, a.longestName), p.ent.Policy, tags(p.holder, l.key.grant)
	return p, true
}

// bound chooses whom the credential is issued to, and how long it lives: the
// subscriber whose certificate ends first, of those who can be issued to. The
// others are told why not. It gives the error of an authority that does not
// know.
func (m *Manager) bound(l *lease, p *plan, verdicts []verdict) (unsure *reason.Error) {
	now := m.clock.wall()
	late, _ := m.lateness(l.account)
	for i := range verdicts {
		v := &verdicts[i]
		if v.sub.closed || !v.sub.eligible() {
			continue
		}
		if v.err != nil {
			unsure = v.err
			continue
		}
		life, err := l.account.lifetime(v.ent, v.sub.holder.Certificate, now, late)
		if err != nil {
			// What it has it keeps, and it may still be given a credential
			// that fits its certificate.
			v.sub.short = true
			m.refuse(l, v.sub, err)
			continue
		}
		if p.request.Duration == 0 || life < p.request.Duration {
			p.request.Duration, p.holder, p.ent = life, v.sub.holder, v.ent
		}
	}
	return unsure
}

// lifetime is how long a credential may live that is issued to the holder of
// the certificate now, in whole seconds.
func (a *account) lifetime(ent Entitlement, c Certificate, now time.Time, late time.Duration) (time.Duration, *reason.Error) {
	life := min(ent.Grant.Lifetime, a.longest).Truncate(time.Second)
	if life < a.shortest {
		return 0, reason.New(reason.GrantInvalid,
			"the grant's lifetime is under the %s that its account issues at least; the provider must correct it", a.shortest)
	}
	left := (c.NotAfter.Sub(now) - certificateMargin - late).Truncate(time.Second)
	if left < a.shortest {
		return 0, reason.New(reason.CertificateEndsTooSoon,
			"the certificate ends before the shortest credential of %s would; renew the certificate", a.shortest)
	}
	return min(life, left), nil
}

func (m *Manager) lateness(a *account) (late, behind time.Duration) {
	m.queues.Lock()
	defer m.queues.Unlock()
	return a.late, a.behind
}

// tags are the session tags, from ids alone. Revocations deny sessions by them.
func tags(h Holder, grantID string) []issuer.Tag {
	var out []issuer.Tag
	for _, t := range []issuer.Tag{
		{Key: "tenant", Value: h.TenantID}, {Key: "user", Value: h.UserID}, {Key: "agent", Value: h.AgentID}, {Key: "grant", Value: grantID},
	} {
		if t.Value != "" {
			out = append(out, t)
		}
	}
	return out
}
