package stream

import (
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
)

// errEnded stops whoever still works for a stream that has ended; why it ended
// is what Close answers.
var errEnded = errors.New("the stream has ended")

// Stream is one open stream. Registry.Open makes it; Handle and Close are for
// the goroutine that receives the agent's messages.
type Stream struct {
	registry  *Registry
	conn      Conn
	principal *authn.Principal
	id        uuid.UUID
	// opened is the wall clock's time, began the registry's.
	opened time.Time
	began  time.Duration
	// phase is where the stream's heartbeats lie in the interval.
	phase time.Duration

	// links are guarded by Registry.mu, place by timers.mu.
	links [relations]link
	place int

	// changing is held while subscriptions are made and given up. Leases are
	// called under it, and under no other lock. It is taken before mu.
	changing sync.Mutex
	// excluded has the grants that a stream of all grants does not want.
	excluded map[string]struct{}
	// overfull: the user has more grants than fit, and the agent was told.
	overfull bool

	// mu is held for moments, and nothing is called under it but the timers and
	// the counts. Leases, which are locked then, deliver under it.
	mu sync.Mutex
	// entries, ordered by name, and all are changed with changing held as
	// well. all: every grant of the user is wanted.
	entries []*entry
	all     bool
	outbox  outbox
	// subscribed: the first message came.
	subscribed bool
	// unsettled: the subscriptions have to be compared with the directory.
	unsettled bool
	// working: the goroutine that drains the outbox exists; idle is closed
	// when it ends, if anybody waits.
	working bool
	idle    chan struct{}
	// sending: a message is with the transport since sentAt.
	sending bool
	sentAt  time.Duration
	// nextBeat is when a heartbeat is due, leaveBy when a departing stream
	// must have ended (0: it does not depart).
	nextBeat, leaveBy time.Duration
	messages          bucket
	client            string
	// ended: err is why. Nothing is filed, sent or handled any more.
	ended bool
	err   error
}

// ID is the stream's UUIDv7.
func (s *Stream) ID() string { return s.id.String() }

// key is what the stream is found under.
func (s *Stream) key(r relation) string {
	switch r {
	case ofTenant:
		return s.principal.TenantID
	case ofUser:
		return s.principal.UserID
	case ofAgent:
		if s.serves() {
			return s.principal.Certificate.ID
		}
		return s.principal.AgentID
	case ofSession:
		return s.principal.SessionID
	case ofCertificate:
		return s.principal.Certificate.Serial
	}
	return ""
}

// Handle carries out one message of the agent's; nil is a message without
// content. After an error the caller closes the stream with it.
func (s *Stream) Handle(r Request) error {
	s.mu.Lock()
	now := s.registry.clock()
	_, subscribes := r.(Subscribe)
	var err error
	switch {
	case s.ended:
		err = errEnded
	case !s.messages.take(now):
		err = reason.New(reason.TooManyMessages,
			"more than %d messages at once, or more than one every %s; send fewer", messageBurst, messageEvery).After(messageEvery * messageBurst)
	case r == nil:
		err = reason.New(reason.InvalidRequest, "message: set one of its fields")
	case !s.subscribed && !subscribes:
		err = errSubscribeFirst
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return r.apply(s)
}

var errSubscribeFirst = reason.New(reason.SubscribeFirst, "the first message must subscribe")

// HalfClosed says that the agent will send no more. It is an error before the
// first subscription.
func (s *Stream) HalfClosed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.subscribed && !s.ended {
		return errSubscribeFirst
	}
	return nil
}

// Close ends the stream with err, unless it has ended, and gives up all that
// it had. It waits until nothing is sent any more, and returns why the stream
// ended: nil means that the broker said good-bye.
func (s *Stream) Close(err error) error {
	s.end(err)
	s.mu.Lock()
	var idle chan struct{}
	if s.working {
		idle = make(chan struct{})
		s.idle = idle
	}
	s.mu.Unlock()
	if idle != nil {
		// Not for long: a Send in progress fails once the call has ended.
		<-idle
	}
	s.registry.telling.wait()
	s.giveUpAll()
	s.registry.forget(s)
	s.registry.logEnd(s)
	return s.err
}

// end ends the stream, unless it has ended.
func (s *Stream) end(err error) {
	if s.mark(err) {
		s.conn.Finish(err)
	}
}

// mark makes the stream an ended one, from which nothing leaves any more, and
// says whether it was not yet. Then the caller must have the call finished.
func (s *Stream) mark(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.ended, s.err = true, err
	s.outbox = outbox{}
	for _, e := range s.entries {
		e.clear() // secrets are not kept for nothing
		e.queued = false
	}
	s.registry.noteEnd(err)
	return true
}

// file puts an event about the entry into the outbox.
func (s *Stream) file(e *entry, event lease.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.outbox.file(e, event)
		s.start()
	}
}

// complain files a problem that concerns no grant. The latest is kept.
func (s *Stream) complain(err *reason.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.outbox.complaint = &lease.Problem{Err: err}
		s.start()
	}
}

// unsettle has the subscriptions compared with the directory soon.
func (s *Stream) unsettle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && s.subscribed {
		s.unsettled = true
		s.start()
	}
}

// start makes the goroutine that drains the outbox, unless there is one or it
// would find nothing to do. mu is held.
func (s *Stream) start() {
	if !s.working && (s.unsettled || !s.outbox.empty()) {
		s.working = true
		s.registry.senders.Do(s)
	}
}

// work drains the outbox. It ends when there is nothing to do and when the
// stream has ended; in between it is the only caller of Conn.Send.
func (s *Stream) work() {
	for {
		s.mu.Lock()
		if s.ended || !s.unsettled && s.outbox.empty() {
			s.working = false
			if s.idle != nil {
				close(s.idle)
				s.idle = nil
			}
			s.mu.Unlock()
			return
		}
		if s.unsettled {
			s.unsettled = false
			s.mu.Unlock()
			s.settle()
			continue
		}
		l, ok := s.outbox.take()
		s.mu.Unlock()
		if ok {
			s.send(l)
		}
	}
}

// send hands one message over, if it may still be sent.
func (s *Stream) send(l letter) {
	if l.Credential != nil && !s.mayHave(l.Credential) {
		return
	}
	if !s.beginSend(&l) {
		return
	}
	err := s.conn.Send(l.Message)
	s.mu.Lock()
	s.sending = false
	s.mu.Unlock()
	switch why := s.bereft(l.Message); {
	case err != nil:
		s.end(err)
	case l.Reconnect != nil:
		s.end(nil)
	case why != nil:
		s.end(why)
	}
}

// serves says whether the stream is a service's, which is of one grant.
func (s *Stream) serves() bool { return s.principal.Kind == authn.Service }

// bereft says why a service's stream has nothing to wait for after the message:
// its grant was taken away, or it has no credential and gets none until
// something changes. An agent waits for that change; a job had better know.
func (s *Stream) bereft(sent Message) error {
	if !s.serves() {
		return nil
	}
	if r := sent.Revoked; r != nil && r.CredentialID == "" {
		return r.Err
	}
	if p := sent.Problem; p != nil && p.RetryAt.IsZero() && p.GoodUntil.IsZero() && !reason.Transient(p.Err) {
		return p.Err
	}
	return nil
}

// mayHave is the last check before a credential leaves the broker. If the
// caller is not good any more the stream ends. If it lost the grant the
// credential is dropped: the change that took it is being told to the lease,
// which revokes the grant and begins anew if it is ever allowed again.
func (s *Stream) mayHave(c *lease.Credential) bool {
	r := s.registry
	if err := r.Checker.Check(*s.principal); err != nil {
		s.end(err)
		return false
	}
	g, ok := r.Directory.Grant(c.GrantID)
	return ok && owns(*s.principal, g) && !g.Disabled
}

// beginSend notes what the agent is about to have. It answers false if the
// message must not be sent: the stream has ended, the grant was given up, or
// the agent has a credential at least as new.
func (s *Stream) beginSend(l *letter) bool {
	r := s.registry
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	switch c := l.Credential; {
	case c != nil:
		u := l.entry.supply
		if u == nil || u.grantID != c.GrantID || !c.IssuedAt.After(l.entry.issued) {
			return false
		}
		l.entry.has(c.ID, c.Expires)
		l.entry.issued = c.IssuedAt
	case l.welcomes:
		l.Welcome = &Welcome{StreamID: s.ID(), Principal: *s.principal, Time: r.Now(), Heartbeat: r.Heartbeat}
	case l.beats:
		l.Heartbeat = &Heartbeat{Time: r.Now()}
	case l.Revoked != nil && l.Revoked.CredentialID == "":
		l.entry.has("", time.Time{})
		l.entry.issued = time.Time{}
	case l.Revoked != nil && l.Revoked.CredentialID == l.entry.credentialID:
		l.entry.has("", time.Time{})
	}
	s.sending, s.sentAt = true, r.clock()
	r.noteSend(l.Message)
	return true
}

// has notes which credential the agent has.
func (e *entry) has(credentialID string, expires time.Time) {
	e.credentialID, e.expires, e.acknowledged = credentialID, expires, time.Time{}
}
