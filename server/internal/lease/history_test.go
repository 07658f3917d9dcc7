package lease

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// model is a world to which random things happen. Every event that a
// subscriber gets is checked at the moment it comes.
type model struct {
	*world
	mu         sync.Mutex
	story      []string
	violations []string
	open       []*client
	// known are ids of credentials that were delivered, by holder and grant.
	known map[string]string
	// flying counts calls to STS by agent and policy.
	flying map[string]int
}

// client is one open subscription of the model.
type client struct {
	m      *model
	h      Holder
	grant  string
	sub    *Subscription
	mu     sync.Mutex
	last   time.Time
	closed bool
}

func (m *model) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.violations = append(m.violations, fmt.Sprintf(format, args...))
}

// tell adds to what is shown if the check fails.
func (m *model) tell(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.story = append(m.story, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
}

// Deliver checks the event against the invariants.
func (c *client) Deliver(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case e.Credential != nil:
		c.m.tell("  %s/%s %p: credential %s until %s", c.h.AgentID, c.grant, c, e.Credential.ID, e.Credential.Expires.Format(time.TimeOnly))
	case e.Problem != nil:
		c.m.tell("  %s/%s %p: problem %s", c.h.AgentID, c.grant, c, e.Problem.Err)
	case e.Revoked != nil:
		c.m.tell("  %s/%s %p: revoked %q %s", c.h.AgentID, c.grant, c, e.Revoked.CredentialID, e.Revoked.Err)
	}
	if c.closed {
		c.m.violate("%s was told of something after it had closed", c.h.AgentID)
	}
	switch {
	case e.Credential != nil:
		c.m.checkCredential(c.h, c.grant, *e.Credential)
		if !e.Credential.IssuedAt.After(c.last) {
			c.m.violate("%s got a credential of %s after one of %s", c.h.AgentID, e.Credential.IssuedAt, c.last)
		}
		c.last = e.Credential.IssuedAt
	case e.Problem != nil:
		p := e.Problem
		if p.RetryAt.IsZero() && reason.Transient(p.Err) && p.Err.Reason != reason.Draining {
			c.m.violate("%s was told of a passing %s without a time", c.h.AgentID, p.Err.Reason)
		}
		if !p.RetryAt.IsZero() && !reason.Transient(p.Err) {
			c.m.violate("%s was told that %s is tried again", c.h.AgentID, p.Err.Reason)
		}
	}
}

// checkCredential checks a credential that is being released.
func (m *model) checkCredential(h Holder, grant string, c Credential) {
	ent, err := m.authority.Entitle(h, grant)
	if err != nil {
		m.violate("%s got a credential and is refused: %v", h.AgentID, err)
		return
	}
	if c.PolicyHash != ent.PolicyHash || c.Location != ent.Location {
		m.violate("%s got a credential under %s, the grant has %s", h.AgentID, c.PolicyHash, ent.PolicyHash)
	}
	if m.authority.Revoked(h, grant, c.ID, c.IssuedAt) {
		m.violate("%s got a revoked credential", h.AgentID)
	}
	if c.Expires.After(h.Certificate.NotAfter) {
		m.violate("%s got a credential that outlives its certificate", h.AgentID)
	}
	if c.SecretAccessKey.IsZero() || c.GrantID != grant {
		m.violate("%s got %+v", h.AgentID, c)
	}
	rec, err := m.trail.find(c.ID)
	if err != nil || rec.AgentID != h.AgentID || rec.UserID != h.UserID || rec.GrantID != grant || !rec.Expires.Equal(c.Expires) {
		m.violate("%s got a credential with the record %+v, %v", h.AgentID, rec, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[h.AgentID+grant] = c.ID
}

// find is FindIssue whatever is wrong with the history.
func (f *fakeTrail) find(id string) (storage.AuditRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.records {
		if r.CredentialID == id {
			return r, nil
		}
	}
	return storage.AuditRecord{}, storage.ErrNotFound
}

func newModel(t *testing.T) *model {
	m := &model{world: newWorld(t, quietly, abruptly, withRate(5), func(_ *world, c *Config) { c.Drain = time.Second }), known: map[string]string{}, flying: map[string]int{}}
	m.sts.wall = m.wall
	m.behave(nil, 0)
	m.start()
	return m
}

// behave sets what STS does, while counting calls in flight.
func (m *model) behave(err error, latency time.Duration) {
	m.sts.set(func(s *fakeSTS) {
		s.fail = func(ctx context.Context, r issuer.Request) error {
			key := r.Tags[2].Value + r.Policy
			m.mu.Lock()
			m.flying[key]++
			if m.flying[key] > 1 {
				m.violations = append(m.violations, "two calls at once for "+key)
			}
			m.mu.Unlock()
			defer func() {
				m.mu.Lock()
				m.flying[key]--
				m.mu.Unlock()
			}()
			if latency == 0 {
				return err
			}
			select {
			case <-time.After(latency):
				return err
			case <-ctx.Done():
				return &issuer.Error{Kind: issuer.Transient, Code: issuer.CodeTimeout}
			}
		}
	})
}

// The actions.

func (m *model) subscribe(rt *rapid.T) {
	c := &client{m: m, h: holder(rapid.IntRange(0, 3).Draw(rt, "agent")), grant: rapid.SampledFrom([]string{"g1", "g2"}).Draw(rt, "grant")}
	if rapid.IntRange(0, 3).Draw(rt, "short") == 0 {
		c.h.Certificate.Serial = "short"
		c.h.Certificate.NotAfter = m.wall().Add(time.Duration(rapid.IntRange(1, 120).Draw(rt, "certificate")) * time.Minute)
	}
	var held *Held
	if rapid.Bool().Draw(rt, "holds") {
		m.mu.Lock()
		held = &Held{ID: m.known[c.h.AgentID+c.grant], Expires: time.Now().Add(hour)}
		m.mu.Unlock()
	}
	m.tell("subscribe %s/%s %p, certificate until %s, holds %+v", c.h.AgentID, c.grant, c, c.h.Certificate.NotAfter.Format(time.DateTime), held)
	c.sub = m.m.Subscribe(c.h, c.grant, held, c)
	m.open = append(m.open, c)
}

func (m *model) unsubscribe(rt *rapid.T) {
	if len(m.open) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.open)-1).Draw(rt, "which")
	m.close(m.open[i])
	m.open = append(m.open[:i], m.open[i+1:]...)
}

func (m *model) close(c *client) {
	m.tell("close %p", c)
	c.sub.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

func (m *model) call(rt *rapid.T) {
	h, grant := holder(rapid.IntRange(0, 3).Draw(rt, "agent")), rapid.SampledFrom([]string{"g1", "g2"}).Draw(rt, "grant")
	minLife := time.Duration(rapid.IntRange(0, 70).Draw(rt, "least")) * time.Minute
	m.tell("call %s/%s for %s", h.AgentID, grant, minLife)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rapid.IntRange(1, 60).Draw(rt, "patience"))*time.Second)
	defer cancel()
	if c, err := m.m.Credential(ctx, h, grant, minLife); err == nil {
		m.checkCredential(h, grant, c)
		if minLife > 0 && time.Until(c.Expires) < minLife && time.Until(m.wall()).Abs() < time.Second {
			m.violate("a caller who wants %s got %s", minLife, time.Until(c.Expires))
		}
	}
}

func (m *model) spoilSTS(rt *rapid.T) {
	err := rapid.SampledFrom([]error{nil, nil, errDown, errThrottled, errDenied}).Draw(rt, "error")
	latency := rapid.SampledFrom([]time.Duration{0, time.Second, 30 * time.Second, 10 * time.Minute}).Draw(rt, "latency")
	m.tell("STS: %v after %s", err, latency)
	m.behave(err, latency)
}

func (m *model) spoilTrail(rt *rapid.T) {
	down, blind, lost := rapid.Bool().Draw(rt, "down"), rapid.Bool().Draw(rt, "blind"), rapid.Bool().Draw(rt, "lost")
	m.tell("trail: down %v, unannounced %v, history lost %v", down, blind, lost)
	m.trail.set(func(f *fakeTrail) {
		f.down, f.blind, f.lost = nil, blind, nil
		if down {
			f.down = errDiskFull
		}
		if lost {
			f.lost = storage.ErrUnavailable
		}
	})
}

func (m *model) stepClock(rt *rapid.T) {
	d := time.Duration(rapid.IntRange(-90, 90).Draw(rt, "minutes")) * time.Minute
	m.tell("clock: %s", d)
	m.step(d)
}

func (m *model) changeRight(rt *rapid.T) {
	what := rapid.SampledFrom([]struct {
		deny string
		kind storage.Kind
		id   string
		why  reason.Reason
	}{
		{"tenant:t1", storage.KindTenant, "t1", reason.TenantDisabled}, {"agent:a1", storage.KindAgent, "a1", reason.AgentDisabled},
		{"grant:g1", storage.KindGrant, "g1", reason.GrantDisabled}, {"session:s2", storage.KindSession, "s2", reason.SessionEnded},
		{"user:u1", storage.KindUser, "u1", reason.StorageUnavailable},
	}).Draw(rt, "what")
	var why *reason.Error
	if rapid.Bool().Draw(rt, "deny") {
		why = reason.New(what.why, "no")
	}
	m.tell("deny %s: %v", what.deny, why)
	m.authority.deny(what.deny, why)
	m.change(what.kind, what.id)
}

func (m *model) changeTerms(rt *rapid.T) {
	grant := rapid.SampledFrom([]string{"g1", "g2"}).Draw(rt, "grant")
	m.authority.alter(grant, func(e *Entitlement) {
		e.PolicyHash = fmt.Sprintf("hash-%s-%d", grant, rapid.IntRange(0, 2).Draw(rt, "hash"))
		e.Location.Endpoint = rapid.SampledFrom([]string{"", "https://s3.example.com"}).Draw(rt, "endpoint")
	})
	m.tell("terms of %s", grant)
	m.change(storage.KindGrant, grant)
}

func (m *model) revokeOne(rt *rapid.T) {
	if len(m.open) == 0 {
		return
	}
	if id := rapid.SampledFrom(m.open).Draw(rt, "whose").sub.Supply().CredentialID; id != "" {
		m.tell("revoke %s", id)
		m.change(storage.KindRevocation, m.authority.revoke(id))
	}
}

func (m *model) report(rt *rapid.T) {
	if len(m.open) > 0 {
		c := rapid.SampledFrom(m.open).Draw(rt, "who")
		m.tell("report %p", c)
		_ = c.sub.Refused(c.sub.Supply().CredentialID, "ExpiredToken")
	}
}

func (m *model) restartBroker(*rapid.T) {
	m.tell("restart")
	for _, c := range m.open {
		m.close(c)
	}
	m.open = nil
	_ = m.stop() // calls may have been cut off
	m.checkCalls()
	// A broker that starts with its clock behind takes what agents hold for
	// younger than it is. Machines ask for the time when they start.
	if m.offset < 0 {
		m.offset = 0
	}
	m.restart()
}

// checkCalls checks the budget of one broker's calls. The next one begins with
// a full bucket.
func (m *model) checkCalls() {
	m.sts.set(func(s *fakeSTS) {
		for i := 1; i < len(s.calls); i++ {
			if gap := s.calls[i].at.Sub(s.calls[i-1].at); gap < time.Second/5 {
				m.violate("two calls within %s", gap)
			}
		}
		s.calls = nil
	})
}

func (m *model) pass(rt *rapid.T) {
	pass(rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, 3 * time.Minute, 20 * time.Minute, 2 * hour}).Draw(rt, "time"))
}

// heal makes everything good again, and checks that everybody is supplied then.
func (m *model) heal() {
	m.tell("heal")
	m.behave(nil, 0)
	m.trail.set(func(f *fakeTrail) { f.down, f.blind, f.lost = nil, false, nil })
	m.authority.mu.Lock()
	clear(m.authority.denied)
	m.authority.mu.Unlock()
	after(11 * time.Minute) // a call may hang for so long
	m.m.Recheck()
	after(2 * time.Minute)
	for _, c := range m.open {
		if c.h.Certificate.Serial == "short" {
			continue
		}
		s := c.sub.Supply()
		ent, err := m.authority.Entitle(c.h, c.grant)
		if err != nil {
			m.violate("not healed: %v", err)
			continue
		}
		rec, err := m.trail.find(s.CredentialID)
		switch {
		case err != nil:
			m.violate("%s has no credential: %+v", c.h.AgentID, s)
		case rec.PolicyHash != ent.PolicyHash, m.authority.Revoked(c.h, c.grant, s.CredentialID, s.IssuedAt):
			m.violate("%s has a credential that is not good: %+v", c.h.AgentID, s)
		case time.Until(rec.Expires) < 4*time.Minute:
			// Other streams of the agent may have short certificates, and the
			// clock may be wrong; then a third of an hour is not to be had.
			m.violate("%s has only %s left", c.h.AgentID, time.Until(rec.Expires))
		}
	}
}

// Random histories keep the invariants, and everything heals.
func TestRandomHistories(outer *testing.T) {
	rapid.Check(outer, func(rt *rapid.T) {
		inOwnBubble(outer, func(t *testing.T) {
			m := newModel(t)
			defer func() {
				if m.cancel != nil {
					_ = m.stop()
				}
			}()
			check := func(rt *rapid.T) {
				synctest.Wait()
				m.mu.Lock()
				defer m.mu.Unlock()
				if len(m.violations) > 0 {
					// Schedules differ from run to run, so rapid may not be
					// able to repeat it: the story has to do.
					outer.Errorf("%s\nviolates: %q", strings.Join(m.story, "\n"), m.violations)
					rt.Fatalf("%q", m.violations)
				}
			}
			rt.Repeat(map[string]func(*rapid.T){
				"subscribe": m.subscribe, "unsubscribe": m.unsubscribe, "call": m.call, "STS": m.spoilSTS, "trail": m.spoilTrail,
				"clock": m.stepClock, "right": m.changeRight, "terms": m.changeTerms, "revoke": m.revokeOne, "report": m.report,
				"restart": m.restartBroker, "pass": m.pass, "pass more": m.pass, "subscribe more": m.subscribe, "": check,
			})
			m.heal()
			m.checkCalls()
			for _, c := range m.open {
				m.close(c)
			}
			after(15 * time.Minute)
			if s := m.m.Stats(); s.Leases != 0 || len(m.m.index[byTenant]) != 0 {
				m.violate("%d leases are left, %d tenants in the index", s.Leases, len(m.m.index[byTenant]))
			}
			check(rt)
		})
	})
}

// inOwnBubble runs one of rapid's checks in a bubble. What rapid panics with
// has to reach rapid's own goroutine.
func inOwnBubble(t *testing.T, check func(*testing.T)) {
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		check(t)
	})
	if thrown != nil {
		panic(thrown)
	}
}
