package stream

import (
	"time"

	"github.com/stokerd/stoker/server/internal/lease"
)

// entry is one grant of a stream: what waits to be sent about it, and what the
// agent has of it. Its fields are guarded by Stream.mu.
type entry struct {
	name string
	// wanted: the agent named the grant, and keeps its place here while there
	// is no such grant. The other entries come and go with the user's grants.
	wanted bool
	// supply is nil while the grant is not to be had. Setting it takes
	// Stream.changing as well.
	supply *supply
	// missing: the agent was told that the user has no such grant. Guarded by
	// Stream.changing.
	missing bool

	// What waits, in this order; queued says that the outbox knows.
	queued     bool
	revoked    *lease.Revoked
	credential *lease.Credential
	problem    *lease.Problem
	// withdrawn: the agent was told, or is about to be, that it lost the
	// grant. The next credential ends that.
	withdrawn bool

	// What the agent has. issued grows with each credential until the grant is
	// revoked as a whole: what comes after that may be the same credential.
	credentialID string
	issued       time.Time
	expires      time.Time
	acknowledged time.Time
}

// outbox holds what waits to be sent on one stream. However much is filed, it
// keeps at most three messages a grant and one each of the others: what is
// newer takes the place of what the agent need not know any more. It is guarded
// by Stream.mu.
type outbox struct {
	welcome bool
	// queue has the entries with something to send, each once, longest waiting
	// first.
	queue []*entry
	// complaint concerns no grant.
	complaint *lease.Problem
	heartbeat bool
	// reconnect is sent last and ends the stream.
	reconnect *Reconnect
}

// file adds an event about the grant.
func (o *outbox) file(e *entry, event lease.Event) {
	switch {
	case event.Revoked != nil:
		e.revoke(event.Revoked)
	case event.Credential != nil:
		// It tells that a problem before it is over; a revocation before it
		// is still told, because it may say why there is a new one.
		e.credential, e.problem, e.withdrawn = event.Credential, nil, false
	case event.Problem != nil:
		e.problem = event.Problem
	}
	if !e.queued && e.waiting() > 0 {
		e.queued = true
		o.queue = append(o.queue, e)
	}
}

// revoke files a revocation, which takes back what waits and is revoked.
func (e *entry) revoke(r *lease.Revoked) {
	if r.CredentialID == "" {
		e.revoked, e.credential, e.problem, e.withdrawn = r, nil, nil, true
		return
	}
	if e.credential != nil && e.credential.ID == r.CredentialID {
		e.credential = nil // the agent never had it, so there is nothing to tell
		return
	}
	// One that waits is worth more than this one if it is of the whole grant, or
	// of the credential that the agent has.
	if w := e.revoked; w == nil || w.CredentialID != "" && w.CredentialID != e.credentialID {
		e.revoked = r
	}
}

// clear takes back all that waits for the entry. The queue finds out by itself.
func (e *entry) clear() { e.revoked, e.credential, e.problem = nil, nil, nil }

func (e *entry) waiting() int {
	n := 0
	for _, waits := range [...]bool{e.revoked != nil, e.credential != nil, e.problem != nil} {
		if waits {
			n++
		}
	}
	return n
}

// empty says whether nothing waits.
func (o *outbox) empty() bool {
	return !o.welcome && len(o.queue) == 0 && o.complaint == nil && !o.heartbeat && o.reconnect == nil
}

// pending counts the messages that wait.
func (o *outbox) pending() int {
	n := 0
	for _, e := range o.queue {
		n += e.waiting()
	}
	for _, waits := range [...]bool{o.welcome, o.complaint != nil, o.heartbeat, o.reconnect != nil} {
		if waits {
			n++
		}
	}
	return n
}

// letter is a message on its way, with the entry it concerns. Welcome and
// Heartbeat are filled in when they are sent, for they hold the time.
type letter struct {
	Message
	entry           *entry
	welcomes, beats bool
}

// take removes the message to send next; ok is false if there is none. Welcome
// comes first and Reconnect last. The grants take turns in the order in which
// they were filed, one message a turn.
func (o *outbox) take() (l letter, ok bool) {
	if o.welcome {
		o.welcome = false
		return letter{welcomes: true}, true
	}
	for len(o.queue) > 0 {
		e := o.queue[0]
		o.queue[0] = nil
		o.queue = o.queue[1:]
		e.queued = false
		l, ok := e.take()
		if e.waiting() > 0 {
			e.queued = true
			o.queue = append(o.queue, e)
		}
		if ok {
			return l, true
		}
	}
	o.queue = nil
	switch {
	case o.complaint != nil:
		l.Problem, o.complaint = o.complaint, nil
	case o.heartbeat:
		l.beats, o.heartbeat = true, false
	case o.reconnect != nil:
		l.Reconnect, o.reconnect = o.reconnect, nil
	default:
		return l, false
	}
	return l, true
}

// take removes the entry's next message.
func (e *entry) take() (l letter, ok bool) {
	l.entry = e
	switch {
	case e.revoked != nil:
		l.Revoked, e.revoked = e.revoked, nil
	case e.credential != nil:
		l.Credential, e.credential = e.credential, nil
	case e.problem != nil:
		l.Problem, e.problem = e.problem, nil
	default:
		return l, false
	}
	return l, true
}
