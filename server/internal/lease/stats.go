package lease

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// counters count since the manager was made.
type counters struct {
	calls, issued, renewed, resumed, unresumed, warm         atomic.Uint64
	refused, throttled, unavailable, auditDown, storageDown  atomic.Uint64
	refusedBySTS, discarded, rejected, unwritten, otherwises atomic.Uint64
}

func (m *Manager) countFailure(why *reason.Error) {
	switch why.Reason {
	case reason.STSRefused:
		m.count.refusedBySTS.Add(1)
	case reason.STSThrottled:
		m.count.throttled.Add(1)
	case reason.STSUnavailable:
		m.count.unavailable.Add(1)
	case reason.AuditUnavailable:
		m.count.auditDown.Add(1)
	case reason.StorageUnavailable:
		m.count.storageDown.Add(1)
	default:
		m.count.otherwises.Add(1)
	}
}

// Counts are totals since the manager was made.
type Counts struct {
	// Calls to STS, whatever came of them.
	Calls uint64
	// Issued and Renewed credentials, Resumed ones that agents still held, and
	// those held ones that were not accepted.
	Issued, Renewed, Resumed, NotResumed uint64
	// Warm answers of Credential from memory.
	Warm uint64
	// Refused: the authority or the certificate's end allowed no credential.
	// RefusedBySTS: STS did not, for good.
	Refused, RefusedBySTS uint64
	// Attempts that failed and are repeated.
	Throttled, STSUnavailable, AuditUnavailable, StorageUnavailable, OtherFailures uint64
	// Discarded credentials were issued and not released, because something
	// changed during the call.
	Discarded uint64
	// Rejected credentials were refused by S3, as agents report.
	Rejected uint64
	// Unwritten audit records of refusals, reports and losses. They are in the
	// log.
	Unwritten uint64
}

// Stats is the state of the whole manager.
type Stats struct {
	Counts
	// Leases, and Subscriptions to them.
	Leases, Subscriptions int
	// Dry leases have a subscriber that is entitled and no valid credential.
	Dry int
	// Emptiest is the least life left in a credential of a lease with
	// subscribers; negative once it has expired. It means nothing if no lease
	// has one: HasCredential is false then.
	Emptiest      time.Duration
	HasCredential bool
	// Accounts by name.
	Accounts []AccountStats
}

// AccountStats is the state of one account.
type AccountStats struct {
	Name string
	// Due leases wait for a call, Waiting ones for their time after a failure;
	// InFlight counts calls.
	Due, Waiting, InFlight int
	// Lag is how long the longest waiting due lease has waited.
	Lag time.Duration
	// Rate is the pace in force, calls a second; Limit the configured one.
	Rate, Limit float64
	// Down: nothing answers, and only probes are made.
	Down bool
}

// Counts gives the totals, in no time.
func (m *Manager) Counts() Counts {
	c := &m.count
	return Counts{
		Calls: c.calls.Load(), Issued: c.issued.Load(), Renewed: c.renewed.Load(),
		Resumed: c.resumed.Load(), NotResumed: c.unresumed.Load(), Warm: c.warm.Load(),
		Refused: c.refused.Load(), RefusedBySTS: c.refusedBySTS.Load(),
		Throttled: c.throttled.Load(), STSUnavailable: c.unavailable.Load(), AuditUnavailable: c.auditDown.Load(),
		StorageUnavailable: c.storageDown.Load(), OtherFailures: c.otherwises.Load(),
		Discarded: c.discarded.Load(), Rejected: c.rejected.Load(), Unwritten: c.unwritten.Load(),
	}
}

// Stats measures. It looks at every lease, which takes milliseconds at a
// hundred thousand.
func (m *Manager) Stats() Stats {
	s := Stats{Counts: m.Counts()}
	lags := map[*account]time.Duration{}
	now := m.clock.now()
	for _, l := range m.all() {
		l.mu.Lock()
		l.measure(&s, now)
		if l.phase == ready {
			lags[l.account] = max(lags[l.account], now.since(l.dueSince))
		}
		l.mu.Unlock()
	}
	m.queues.Lock()
	defer m.queues.Unlock()
	for _, a := range m.order[1:] {
		s.Accounts = append(s.Accounts, AccountStats{
			Name: a.name, Due: a.ready.len() + a.dry.len(), Waiting: a.waiting.len(), InFlight: a.flying, Lag: lags[a],
			Rate: float64(a.pace.rateAt(m.clock.steady())), Limit: float64(a.pace.full), Down: a.gate.closed,
		})
	}
	return s
}

// measure adds a lease to the state. The lease is locked.
func (l *lease) measure(s *Stats, now instant) {
	if l.ended {
		return
	}
	s.Leases++
	entitled := false
	for _, sub := range l.subs {
		if !sub.call {
			s.Subscriptions++
		}
		entitled = entitled || sub.allowed && sub.eligible()
	}
	if !entitled {
		return
	}
	if l.cur == nil || l.cur.end <= now {
		s.Dry++
	}
	if l.cur == nil {
		return
	}
	if left := l.cur.end.since(now); !s.HasCredential || left < s.Emptiest {
		s.Emptiest, s.HasCredential = left, true
	}
}

// Status is the state of one lease.
type Status struct {
	// Holder is that of the first subscription; of a lease that lingers only
	// the ids are known.
	Holder  Holder
	GrantID string
	Grant   string
	Account string
	// Subscriptions counts streams. Entitled: one of them may have a
	// credential.
	Subscriptions int
	Entitled      bool
	// The credential in force; CredentialID is empty if there is none.
	CredentialID               string
	IssuedAt, Expires, RenewAt time.Time
	// Resumed: only the agent has its secret.
	Resumed bool
	// Due: it waits for a call to STS. InFlight: the call has begun.
	Due, InFlight bool
	// Problem is why the last attempt failed, empty if it did not; RetryAt
	// when the next one is made, zero if that takes a change.
	Problem reason.Reason
	RetryAt time.Time
}

// Leases gives the state of each lease, in no order. Leases are looked at one
// after the other while the caller goes through them.
func (m *Manager) Leases() iter.Seq[Status] {
	return func(yield func(Status) bool) {
		for _, l := range m.all() {
			if s, ok := m.status(l); ok && !yield(s) {
				return
			}
		}
	}
}

func (m *Manager) status(l *lease) (Status, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return Status{}, false
	}
	s := Status{
		Holder:  Holder{AgentID: l.key.agent, UserID: l.key.user},
		GrantID: l.key.grant, Grant: l.name, Account: l.account.name,
		Due: l.phase == ready, InFlight: l.phase == flying,
	}
	for _, sub := range l.subs {
		if !sub.call {
			s.Subscriptions++
		}
		s.Entitled = s.Entitled || sub.allowed && sub.eligible()
	}
	if len(l.subs) > 0 {
		s.Holder = l.subs[0].holder
	}
	if h := l.cur; h != nil {
		s.CredentialID, s.IssuedAt, s.Expires, s.Resumed = h.ID, h.IssuedAt, h.Expires, h.bare
		s.RenewAt = m.clock.wallAt(h.renewAt)
	}
	if l.trouble != nil {
		s.Problem = l.trouble.Reason
		if !l.permanent {
			s.RetryAt = m.clock.wallAt(l.retryAt)
		}
	}
	return s, true
}
