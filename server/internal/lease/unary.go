package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Credential gives the holder one credential with at least minLife left; 0
// means a third of its lifetime. It is the one in force if that lasts long
// enough, else a new one, for which the caller stands in the same queue as
// everybody. The holder's right to it is checked at each call.
//
// Without a wish for minLife the last good credential is given as long as it
// lasts while no new one can be had. INVALID_REQUEST: a new credential would
// not live as long as minLife. RATE_LIMITED: the credential in force was
// issued less than Config.ReportInterval ago and is not replaced for a wish.
func (m *Manager) Credential(ctx context.Context, h Holder, grantID string, minLife time.Duration) (Credential, error) {
	ent, refused := m.entitle(h, grantID)
	if refused != nil {
		return Credential{}, m.refuseCall(ctx, h, grantID, refused)
	}
	cur := m.inForce(h, grantID, ent)
	if cur != nil && m.lasts(cur, minLife) {
		m.count.warm.Add(1)
		return cur.Credential, nil
	}
	if err := m.checkWish(ent, h, cur, minLife); err != nil {
		return Credential{}, err
	}
	c, err := m.await(ctx, h, grantID, cur)
	switch {
	case err == nil && minLife > 0:
		if err := m.checkLife(h, grantID, ent, c.ID, minLife); err != nil {
			return Credential{}, err
		}
		return c, nil
	case err == nil || minLife > 0 || !reason.Transient(err) || ctx.Err() != nil:
		return c, err
	}
	// The last good one, if it is still allowed now.
	if ent, refused = m.entitle(h, grantID); refused != nil {
		return Credential{}, m.refuseCall(ctx, h, grantID, refused)
	}
	if cur = m.inForce(h, grantID, ent); cur == nil {
		return Credential{}, err
	}
	return cur.Credential, nil
}

// inForce gives the lease's credential if the holder, who has just been found
// entitled, may have it; nil if there is none.
func (m *Manager) inForce(h Holder, grantID string, ent Entitlement) *holding {
	m.mu.RLock()
	l := m.leases[keyOf(h, grantID)]
	m.mu.RUnlock()
	if l == nil {
		return nil
	}
	now := m.clock.now()
	l.mu.Lock()
	cur := l.cur
	good := cur != nil && !l.ended && !l.rejected && !cur.bare && cur.end > now
	if good && len(l.subs) == 0 {
		l.lingerAt = now.add(m.cfg.Linger)
	}
	l.mu.Unlock()
	if !good || !cur.under(ent) || cur.Expires.After(h.Certificate.NotAfter) ||
		m.cfg.Authority.Revoked(h, grantID, cur.ID, cur.stamped) {
		return nil
	}
	return cur
}

// lasts says whether the credential has as much life left as is wished for.
func (m *Manager) lasts(cur *holding, minLife time.Duration) bool {
	if minLife <= 0 {
		minLife = cur.life / 3
	}
	return cur.end.since(m.clock.now()) >= minLife
}

// checkWish refuses wishes that no new credential would fulfill, and those
// that would have one credential issued after the other.
func (m *Manager) checkWish(ent Entitlement, h Holder, cur *holding, minLife time.Duration) error {
	if minLife <= 0 {
		return nil
	}
	a := m.accounts[ent.Account]
	late, _ := m.lateness(a)
	life, err := a.lifetime(ent, h.Certificate, m.clock.wall(), late)
	if err == nil && minLife > life {
		return reason.New(reason.InvalidRequest, "min_life: a new credential lives for %s; ask for less", life)
	}
	if cur == nil {
		return nil
	}
	age := cur.life - cur.end.since(m.clock.now())
	if wait := m.cfg.ReportInterval - age; wait > 0 && m.lasts(cur, 0) {
		return reason.New(reason.RateLimited, "min_life: a new credential was issued a moment ago; ask for less or wait").After(wait)
	}
	return nil
}

// checkLife refuses a new credential that lives less than was wished for: the
// lease has another subscriber, whose certificate ends sooner.
func (m *Manager) checkLife(h Holder, grantID string, ent Entitlement, id string, minLife time.Duration) error {
	if cur := m.inForce(h, grantID, ent); cur != nil && cur.ID == id && cur.life < minLife {
		return reason.New(reason.InvalidRequest,
			"min_life: another stream of the agent has a certificate that lets credentials live for %s only; ask for less", cur.life)
	}
	return nil
}

// refuseCall records the refusal of a call and gives it back.
func (m *Manager) refuseCall(ctx context.Context, h Holder, grantID string, why *reason.Error) error {
	if !reason.Transient(why) {
		m.count.refused.Add(1)
		m.writeFor(ctx, refusal(h, grantID, why))
	}
	return why
}

// await subscribes until there is a credential other than past, or a reason
// why there is none.
func (m *Manager) await(ctx context.Context, h Holder, grantID string, past *holding) (Credential, error) {
	w := waiter{ctx, make(chan Event, 1)}
	s := &Subscription{manager: m, holder: h, to: w, past: past, call: true}
	m.attach(s, grantID)
	defer s.Close()
	m.review(s.lease, s)
	stopping := m.stopping
	for {
		select {
		case e := <-w.events:
			if e.Credential != nil {
				return *e.Credential, nil
			}
			return Credential{}, m.answer(e)
		case <-ctx.Done():
			return Credential{}, fmt.Errorf("waiting for a credential: %w", ctx.Err())
		case <-stopping:
			if !s.lease.inFlight() {
				return Credential{}, errDraining()
			}
			stopping = m.done
		case <-m.done:
			return Credential{}, errDraining()
		}
	}
}

func (l *lease) inFlight() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase == flying
}

// waiter is the subscriber of one call: it keeps the first event that answers.
type waiter struct {
	ctx    context.Context // the call's
	events chan Event
}

// Cause implements Traced.
func (w waiter) Cause() context.Context { return w.ctx }

// Deliver keeps the event. It is never that one credential was revoked: a call
// has none before its answer.
func (w waiter) Deliver(e Event) {
	select {
	case w.events <- e:
	default:
	}
}

// answer is why there is no credential.
func (m *Manager) answer(e Event) error {
	if e.Revoked != nil {
		return e.Revoked.Err
	}
	p := e.Problem
	if wait := p.RetryAt.Sub(m.clock.wall()); !p.RetryAt.IsZero() && wait > 0 {
		return p.Err.After(wait)
	}
	return p.Err
}
