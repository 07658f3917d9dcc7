package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorDomain is the domain of every ErrorInfo that a broker sends. A detail of
// another domain was made by something between us and the broker.
const errorDomain = "stoker"

// longestMessage bounds, in bytes, what is kept of a message that came over the
// network.
const longestMessage = 1024

// Why a grant has no credential to hand out. A [CredentialError] wraps one of
// these, and where there is one the *[Error] behind it.
var (
	// ErrNoCredentialYet: none has arrived so far.
	ErrNoCredentialYet = errors.New("no credential has arrived yet")
	// ErrExpired: the last one has expired, and no other came in time.
	ErrExpired = errors.New("the credential has expired")
	// ErrRevoked: the broker revoked it.
	ErrRevoked = errors.New("the credential was revoked")
	// ErrNotConfigured: Config.Grants does not name the grant.
	ErrNotConfigured = errors.New("the grant is not among the configured ones")
	// ErrAmbiguous: no grant was named, and there is more than one.
	ErrAmbiguous = errors.New("there are several grants: name one")
	// ErrClosed: the source was closed.
	ErrClosed = errors.New("the source is closed")
)

// Error is what the broker answered, or why it could not be asked. It never
// holds a secret.
type Error struct {
	// Reason is the broker's. Empty: no broker answered; Message then says what
	// happened on the way.
	Reason Reason
	// Message is for people. Control characters are removed.
	Message string
	// RetryAfter is how long the broker advises to wait; 0: it said nothing.
	RetryAfter time.Duration
	// Transient: waiting may help. It follows from Reason; without one it is
	// true but for a certificate or a password that cannot be right.
	Transient bool
	// Grant is the grant that the error concerns. Empty: no single one.
	Grant string
	// RequestID identifies the call in the provider's logs. May be empty.
	RequestID string

	cause error
}

// Error gives the reason and the message.
func (e *Error) Error() string {
	if e.Reason == "" {
		return e.Message
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Reason, e.Message)
	if e.Reason == ReasonInternal && e.RequestID != "" {
		fmt.Fprintf(&b, " (request id %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap gives the error underneath, such as an x509.UnknownAuthorityError, or
// nil.
func (e *Error) Unwrap() error { return e.cause }

// ReasonOf gives the broker's reason inside err, or "" where there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// CredentialError says why a grant has no credential to hand out.
type CredentialError struct {
	// Grant is the grant's name, or empty where none was named.
	Grant string
	// State is ErrNoCredentialYet, ErrExpired, ErrRevoked, ErrNotConfigured,
	// ErrAmbiguous or ErrClosed.
	State error
	// Cause is what the broker said, or what keeps the source from asking it.
	// It may be nil.
	Cause *Error
}

// Error gives the state and its cause.
func (e *CredentialError) Error() string {
	var b strings.Builder
	if e.Grant != "" {
		fmt.Fprintf(&b, "grant %s: ", e.Grant)
	}
	b.WriteString(e.State.Error())
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %s", e.Cause)
	}
	return b.String()
}

// Unwrap gives the state and the cause.
func (e *CredentialError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.State}
	}
	return []error{e.State, e.Cause}
}

// fromStatus turns what a call returned into an Error: the broker's if it
// carries its detail, else one of the way there. fault is what the connection
// noticed itself; gRPC reports that as text alone.
func fromStatus(st *status.Status, fault error) *Error {
	e := &Error{Message: printable(st.Message()), Transient: true}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				e.Reason = Reason(printable(d.GetReason()))
				e.Grant = printable(d.GetMetadata()["grant"])
				e.Transient = Transient(e.Reason)
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = max(0, d.GetRetryDelay().AsDuration())
		case *errdetails.RequestInfo:
			e.RequestID = printable(d.GetRequestId())
		}
	}
	if e.Reason == "" && fault != nil {
		return fromFault(fault)
	}
	if e.Reason == "" && st.Code() != codes.Unavailable {
		e.Message = fmt.Sprintf("%s: %s", st.Code(), e.Message)
	}
	return e
}

// fromFault explains what went wrong on the connection. A certificate that
// cannot be verified does not become right by waiting.
func fromFault(fault error) *Error {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		invalid      x509.CertificateInvalidError
		remote       *net.OpError
	)
	switch {
	case errors.As(fault, &invalid) && invalid.Reason == x509.Expired:
		return fromClock(fault, invalid.Cert)
	case errors.As(fault, &authority):
		return &Error{cause: fault, Message: "the broker's certificate is of another authority than the configured one: " + printable(fault.Error())}
	case errors.As(fault, &verification):
		return &Error{cause: fault, Message: "the broker's certificate cannot be verified: " + printable(fault.Error())}
	case errors.As(fault, &remote) && remote.Op == "remote error" && strings.Contains(remote.Err.Error(), "certificate"):
		// The alerts for certificates, and only those, have the word in their
		// names.
		return &Error{cause: fault, Message: "the broker refused this agent's certificate: " + printable(remote.Err.Error())}
	}
	return &Error{cause: fault, Transient: true, Message: printable(fault.Error())}
}

// fromClock explains a certificate of the broker's that is not in date by this
// machine's clock, which may be the one that is wrong. A clock that is behind is
// expected to be set soon: many machines start with one.
func fromClock(fault error, certificate *x509.Certificate) *Error {
	now := time.Now()
	if now.Before(certificate.NotBefore) {
		return &Error{cause: fault, Transient: true, Message: fmt.Sprintf(
			"the broker's certificate is good from %s on, and this machine's clock says %s: correct the clock", stamp(certificate.NotBefore), stamp(now))}
	}
	return &Error{cause: fault, Message: fmt.Sprintf(
		"the broker's certificate ended at %s, and this machine's clock says %s: correct the clock, or if it is right tell the provider", stamp(certificate.NotAfter), stamp(now))}
}

// final says whether only somebody's correction can help. A reason that a new
// login heals is permanent for its token, but not for the source.
func (e *Error) final() bool { return !e.Transient && !e.Reason.loginHelps() }

// printable bounds a text that came over the network and takes out of it what
// could forge a line in a log or steer a terminal.
func printable(s string) string {
	if len(s) > longestMessage {
		s = s[:longestMessage] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
