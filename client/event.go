package client

import (
	"fmt"
	"strings"
	"time"
)

// EventKind says what happened. New kinds may be added; ignore unknown ones.
type EventKind string

// What can happen.
const (
	// EventConnected: a broker welcomed the source.
	EventConnected EventKind = "connected"
	// EventCredential: a credential arrived and is in use.
	EventCredential EventKind = "credential"
	// EventProblem: the broker cannot supply a grant, or sent something that
	// cannot be used. The last credential stays in use until it expires.
	EventProblem EventKind = "problem"
	// EventRevocation: a grant's credential was taken out of use, because the
	// broker said so of it or of whom it was issued to.
	EventRevocation EventKind = "revocation"
	// EventReconnect: the broker is shutting down and has said when to come
	// back.
	EventReconnect EventKind = "reconnect"
	// EventDisconnected: the stream ended, or none could be opened.
	EventDisconnected EventKind = "disconnected"
	// EventCertificate: the agent's certificate was replaced or renewed, or
	// that could not be done.
	EventCertificate EventKind = "certificate"
)

// Event is one thing that happened to a source. Which fields are set depends on
// its kind.
type Event struct {
	Kind EventKind
	// Time is when, by this machine's clock.
	Time time.Time
	// Broker is the address. Connected, disconnected.
	Broker string
	// Identity and StreamID are what the broker said. Connected.
	Identity Identity
	StreamID string
	// Grant is the grant's name. Credential, problem, revocation; empty where
	// the problem concerns the whole stream.
	Grant string
	// Credential is what arrived, its secrets included. Credential.
	Credential Credential
	// CredentialID is the revoked credential. Empty: all of the grant's.
	// Revocation.
	CredentialID string
	// Certificate is the one in the files. Certificate.
	Certificate Certificate
	// Err says why, mostly an *Error. Problem, revocation, disconnected; nil
	// where the broker ended the stream as it had said. Certificate; nil: all is
	// well.
	Err error
	// RetryTime is when the broker tries again (problem), or when the source
	// connects (reconnect, disconnected) or renews (certificate) again. Zero:
	// not until something changes.
	RetryTime time.Time
	// GoodUntil is the end of the last credential. Problem; zero: there is
	// none.
	GoodUntil time.Time
}

// String gives a line for people, without secrets and without the time.
func (e Event) String() string {
	var b strings.Builder
	switch e.Kind {
	case EventConnected:
		fmt.Fprintf(&b, "connected to %s as %s", e.Broker, e.Identity)
	case EventCredential:
		fmt.Fprintf(&b, "credential %s", e.Credential)
	case EventProblem:
		fmt.Fprintf(&b, "problem with %s: %v", orStream(e.Grant), e.Err)
		if !e.RetryTime.IsZero() {
			fmt.Fprintf(&b, "; the broker tries again at %s", stamp(e.RetryTime))
		} else if err := asError(e.Err); err != nil && !err.Transient {
			b.WriteString("; the broker does not try again until something changes")
		}
		if e.GoodUntil.IsZero() {
			b.WriteString("; there is no credential")
		} else {
			fmt.Fprintf(&b, "; the last credential is good until %s", stamp(e.GoodUntil))
		}
	case EventRevocation:
		fmt.Fprintf(&b, "revoked %s: %v", e.Grant, e.Err)
	case EventReconnect:
		fmt.Fprintf(&b, "the broker is shutting down; connecting again at %s", stamp(e.RetryTime))
	case EventDisconnected:
		fmt.Fprintf(&b, "disconnected from %s", e.Broker)
		if e.Err != nil {
			fmt.Fprintf(&b, ": %v", e.Err)
		}
		fmt.Fprintf(&b, "; connecting again at %s", stamp(e.RetryTime))
	case EventCertificate:
		fmt.Fprintf(&b, "certificate %s", e.Certificate)
		if e.Err != nil {
			fmt.Fprintf(&b, ": %v", e.Err)
		}
		if !e.RetryTime.IsZero() {
			fmt.Fprintf(&b, "; trying again at %s", stamp(e.RetryTime))
		}
	default:
		b.WriteString(string(e.Kind))
	}
	return b.String()
}

func orStream(grant string) string {
	if grant == "" {
		return "the stream"
	}
	return grant
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
