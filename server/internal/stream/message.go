package stream

import (
	"time"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
)

// Message is what is sent to an agent. Exactly one field is set. Messages are
// shared between streams: whoever sends one must not change it.
type Message struct {
	Welcome    *Welcome
	Credential *lease.Credential
	Problem    *lease.Problem
	Revoked    *lease.Revoked
	Reconnect  *Reconnect
	Heartbeat  *Heartbeat
}

// Welcome is the first message of every stream.
type Welcome struct {
	// StreamID is a UUIDv7.
	StreamID  string
	Principal authn.Principal
	// Time is the broker's clock.
	Time time.Time
	// Heartbeat is the time between two heartbeats.
	Heartbeat time.Duration
}

// Reconnect is the last message of a stream that the broker's shutdown ends.
type Reconnect struct {
	// Delay is how long the agent should wait before it opens another stream.
	Delay time.Duration
}

// Heartbeat shows that the broker is alive.
type Heartbeat struct {
	// Time is the broker's clock.
	Time time.Time
}

// Conn is the way to one agent: the call behind a stream.
type Conn interface {
	// Send hands a message to the transport. It may wait for the agent to
	// read. It answers an error once the call has ended, also when the call
	// ends while Send waits. It is never called concurrently, and not after
	// Stream.Close has returned.
	Send(Message) error
	// Finish ends the call and tells the agent why; nil is a regular end. It
	// never waits, and makes a Send in progress and the receiving of further
	// messages fail. It is called at most once, by any goroutine.
	Finish(err error)
}

// Request is a message of the agent's: Subscribe, Unsubscribe, Acknowledge or
// ReportRefused.
type Request interface {
	// apply carries the request out. An error ends the stream.
	apply(*Stream) error
}

// Subscribe adds grants to the stream.
type Subscribe struct {
	// Grants are names. Empty: all of the user's, those included that are
	// added while the stream is open.
	Grants []string
	// Held says what the agent still has, at most one credential a grant.
	Held []Held
	// Client is what the agent says that it runs. May be empty.
	Client string
}

// Held is a credential that the agent has from an earlier stream.
type Held struct {
	// Grant is the grant's name.
	Grant string
	// Credential is unverified: lease compares it with the audit trail.
	Credential lease.Held
}

// Unsubscribe drops grants.
type Unsubscribe struct {
	// Grants are names, at least one.
	Grants []string
}

// Acknowledge says that a credential arrived.
type Acknowledge struct {
	CredentialID string
}

// ReportRefused says that S3 refused a credential.
type ReportRefused struct {
	CredentialID string
	// ErrorCode is S3's, for the audit trail. May be empty.
	ErrorCode string
}
