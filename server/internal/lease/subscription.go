package lease

import (
	"slices"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Subscription is one stream's part in a lease. Its methods are safe for
// concurrent use.
type Subscription struct {
	manager *Manager
	to      Subscriber
	holder  Holder
	// lease is set before the subscription is found by anybody.
	lease *lease

	// The lease's mu guards what follows.

	// held is a credential that the agent says it has, until that is decided.
	held *Held
	// past is a credential that this subscriber must not be given: it wants
	// another, or was told to stop using it.
	past *holding
	// refused is why the authority allows nothing.
	refused *reason.Error
	// have is the credential it was given or resumed with, nil if none.
	have *holding
	// told is the problem it knows of.
	told *notice
	// ackedAt is when it acknowledged have, in whole seconds on the timeline;
	// 0: it has not.
	ackedAt uint32
	// judged: the authority has been asked. allowed: it last said yes.
	judged, allowed bool
	// looking: the history is being asked about held.
	looking bool
	// short: its certificate ends too soon for a new credential.
	short  bool
	closed bool
	// call: one unary call, which no listing shows.
	call bool

	// The manager's mu guards these.
	place    [indexKinds]int32
	location string
}

// notice is what a subscriber was told of, and when.
type notice struct {
	why reason.Reason
	at  instant
}

// has says whether the subscriber was given the credential last.
func (s *Subscription) has(credentialID string) bool {
	return s.have != nil && s.have.ID == credentialID
}

// longestID bounds the id of a held credential.
const longestID = 64

// Subscribe supplies the holder under the grant until the subscription is
// closed. It begins with the credential in force, with the acceptance of the
// held one (which is silent), with an issue, or with a problem; some of that
// may be delivered before Subscribe returns.
//
// A refusal does not end the subscription: should the grant be allowed again,
// supply begins again.
func (m *Manager) Subscribe(h Holder, grantID string, held *Held, s Subscriber) *Subscription {
	sub := &Subscription{manager: m, holder: h, to: s}
	if held != nil && held.ID != "" && len(held.ID) <= longestID {
		sub.held = &Held{ID: held.ID, Expires: held.Expires}
	}
	m.attach(sub, grantID)
	if m.closed.Load() {
		s.Deliver(Event{Problem: &Problem{GrantID: grantID, Err: errDraining()}})
		return sub
	}
	m.review(sub.lease, sub)
	return sub
}

func errDraining() *reason.Error {
	return reason.New(reason.Draining, "the broker is shutting down; reconnect")
}

// attach adds the subscription to its lease, which it makes if need be. It is
// in the index before anything is asked about it, so that no change between
// the question and the answer goes unnoticed.
func (m *Manager) attach(s *Subscription, grantID string) {
	k := keyOf(s.holder, grantID)
	for {
		l := m.file(k, s)
		l.mu.Lock()
		if !l.ended {
			l.subs = append(l.subs, s)
			if l.permanent && l.retryAt <= m.clock.now() {
				l.clearTrouble()
			}
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		m.unfile(s)
	}
}

// file finds or makes the lease, and files the subscription in the index.
func (m *Manager) file(k key, s *Subscription) *lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.leases[k]
	if l == nil {
		l = &lease{key: k, account: m.nowhere, issuedAt: m.floor}
		m.leases[k] = l
	}
	s.lease = l
	for kind, id := range s.keys() {
		m.index.add(kind, id, s)
	}
	return l
}

// unfile takes the subscription out of the index.
func (m *Manager) unfile(s *Subscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, id := range s.keys() {
		m.index.remove(kind, id, s)
	}
}

// Close ends the subscription. Once it has returned nothing is delivered. The
// lease stays for a while, so that a reconnect finds it.
func (s *Subscription) Close() {
	l, m := s.lease, s.manager
	l.mu.Lock()
	if s.closed {
		l.mu.Unlock()
		return
	}
	s.closed = true
	l.subs = slices.DeleteFunc(l.subs, func(o *Subscription) bool { return o == s })
	if len(l.subs) == 0 {
		l.lingerAt = m.clock.now().add(m.cfg.Linger)
	}
	m.settle(l)
	l.mu.Unlock()
	m.unfile(s)
}

// Acknowledge notes that the agent has the credential. Of one that it was not
// given last nothing is noted.
func (s *Subscription) Acknowledge(credentialID string) {
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	if s.has(credentialID) {
		s.ackedAt = uint32(s.manager.clock.now() / instant(time.Second))
	}
}

// Refused takes the report that S3 refused the credential, with the error code
// that S3 gave, which may be empty. The credential is then replaced, at most
// once each Config.ReportInterval: REPORT_TOO_FREQUENT says when the next
// report may come. CREDENTIAL_UNKNOWN: the subscriber was not given it. A
// report of the credential before the present one is accepted and changes
// nothing; one of a held credential that is still being looked up keeps it from
// being resumed.
func (s *Subscription) Refused(credentialID, code string) error {
	l, m := s.lease, s.manager
	l.mu.Lock()
	unconfirmed := s.held != nil && s.held.ID == credentialID
	err := m.refusedByS3(l, s, credentialID, code)
	l.mu.Unlock()
	if unconfirmed && err == nil {
		m.review(l, s)
	}
	return err
}

// refusedByS3 takes a report. The lease is locked.
func (m *Manager) refusedByS3(l *lease, s *Subscription, credentialID, code string) error {
	now := m.clock.now()
	unconfirmed := s.held != nil && s.held.ID == credentialID
	switch {
	case s.closed || credentialID == "":
		return errUnknownCredential()
	case unconfirmed:
	case credentialID == l.previous:
		return nil
	case l.cur == nil || s.have != l.cur || l.cur.ID != credentialID:
		return errUnknownCredential()
	}
	if wait := m.cfg.ReportInterval - now.since(l.reportedAt); l.reportedAt > 0 && wait > 0 {
		return reason.New(reason.ReportTooFrequent, "a refused credential was replaced a moment ago; wait before reporting another").After(wait)
	}
	l.reportedAt = now
	m.count.rejected.Add(1)
	if unconfirmed {
		// What the history would say does not matter any more: the subscriber
		// gets what it would get if it held nothing. There is no record, since
		// nothing is known of the credential.
		s.held, s.looking = nil, false
		return nil
	}
	l.rejected = true
	m.recordRejection(l, s, code)
	m.settle(l)
	return nil
}

func errUnknownCredential() *reason.Error {
	return reason.New(reason.CredentialUnknown, "this credential is not the one that the stream was given; check the id")
}

// Holder gives the holder as subscribed.
func (s *Subscription) Holder() Holder { return s.holder }

// Supply is how a subscription is supplied at the moment.
type Supply struct {
	// CredentialID is the one it was given or resumed with; empty: none.
	CredentialID      string
	IssuedAt, Expires time.Time
	// AcknowledgedAt is zero until the agent has acknowledged CredentialID. It
	// is kept to the second.
	AcknowledgedAt time.Time
	// Problem is what keeps it from a credential, empty if nothing does.
	Problem reason.Reason
}

// Supply says what the subscriber has.
func (s *Subscription) Supply() Supply {
	l := s.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	var out Supply
	if h := s.have; h != nil {
		out.CredentialID, out.IssuedAt, out.Expires = h.ID, h.IssuedAt, h.Expires
	}
	if s.ackedAt > 0 {
		out.AcknowledgedAt = s.manager.clock.wallAt(instant(s.ackedAt) * instant(time.Second))
	}
	switch {
	case s.refused != nil:
		out.Problem = s.refused.Reason
	case s.short:
		out.Problem = reason.CertificateEndsTooSoon
	case l.trouble != nil:
		out.Problem = l.trouble.Reason
	}
	return out
}
