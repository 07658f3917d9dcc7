package lease

import (
	"context"
	"time"
)

// Tracer follows attempts to issue, from the queue to the release. It must not
// block.
type Tracer interface {
	// Attempt begins one, and gives the context for its steps and what ends
	// it: with why no credential came of it, or nil. An error without a reason
	// says that the credential came too late and was discarded.
	Attempt(ctx context.Context, a Attempt) (context.Context, func(err error))
}

// Attempt is one attempt to issue. It holds no secret.
type Attempt struct {
	Account, CredentialID       string
	Tenant, Login, Agent, Grant string
	// Renewal: the lease had a credential before.
	Renewal bool
	// Waited is how long the lease stood in its account's queue.
	Waited time.Duration
	// For has the contexts of the calls that wait for it; they may have ended.
	For []context.Context
}

// Traced is a Subscriber that can name the call that it serves, so that an
// attempt for it can be found from there. Streams are asked about their first
// credential only: what follows is no answer to anything.
type Traced interface {
	Cause() context.Context
}

// causes lists the calls that wait for the lease's credential. The lease is
// locked.
func (m *Manager) causes(l *lease) (calls []context.Context) {
	if m.cfg.Tracer == nil || l.cur != nil {
		return nil
	}
	for _, s := range l.subs {
		if t, ok := s.to.(Traced); ok && s.eligible() && l.unserved(s) {
			calls = append(calls, t.Cause())
		}
	}
	return calls
}

// trace begins an attempt's trace.
func (m *Manager) trace(p plan) (context.Context, func(error)) {
	if m.cfg.Tracer == nil {
		return m.ctx, func(error) {}
	}
	h := p.holder
	return m.cfg.Tracer.Attempt(m.ctx, Attempt{
		Account: p.account.name, CredentialID: p.id,
		Tenant: h.Tenant, Login: h.Login, Agent: h.Agent, Grant: p.ent.Grant.Name,
		Renewal: p.renewal, Waited: p.waited, For: p.causes,
	})
}
