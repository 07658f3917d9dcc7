package lease

import (
	"context"
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Certificate is what the lease needs to know of a client certificate.
type Certificate struct {
	// Serial and Thumbprint are lower-case hexadecimal.
	Serial, Thumbprint string
	// Vouchers names the authorities that it was verified by; this package only
	// passes it on to the Authority.
	Vouchers string
	// NotAfter bounds every credential given to the holder. A holder without
	// it is given none.
	NotAfter time.Time
}

// Holder is who a credential is for: the authenticated caller of one stream or
// call. An internal service has no agent and user; its Actor takes their place.
type Holder struct {
	TenantID, Tenant string
	UserID, Login    string
	AgentID, Agent   string
	SessionID        string
	// PasswordVersion is the one that the session was made with.
	PasswordVersion int64
	Certificate     Certificate
	// Actor is the SPIFFE ID, Peer the network address; both for the audit
	// trail.
	Actor, Peer string
	// Purpose is what a service acts for; empty for an agent. Every record has
	// it, the name of the STS session shows it, and who asks for another
	// purpose gets another credential.
	Purpose string
}

// Entitlement is what a grant gives its holder at this moment.
type Entitlement struct {
	Grant    storage.Grant
	Location storage.Location
	// Account names the account whose STS issues; Config.Accounts has it.
	Account string
	// Policy is the session policy, PolicyHash its SHA-256 in hexadecimal.
	Policy, PolicyHash string
	// Fence is the sequence of the change feed, read before anything was
	// looked up: an audit record with it fails if the feed has moved on.
	Fence int64
}

// Authority says who may have what. It answers from memory in microseconds,
// never waits, and is safe for concurrent use.
type Authority interface {
	// Entitle gives what the grant gives the holder now, or a *reason.Error
	// saying why it gives nothing. It checks the holder too: certificate,
	// session, user, agent, tenant.
	Entitle(h Holder, grantID string) (Entitlement, error)
	// Revoked says whether a revocation covers the credential that was issued
	// to the holder under the grant at that time, by the issuing broker's
	// clock.
	Revoked(h Holder, grantID, credentialID string, issued time.Time) bool
	// RevokedSerial gives the serial number of a certificate by its storage
	// id, if the certificate is revoked.
	RevokedSerial(certificateID string) (serial string, ok bool)
	// Revocation finds a revocation by id.
	Revocation(id string) (storage.Revocation, bool)
	// Sync returns once everything that was committed before the call shows in
	// the other answers. It alone may wait.
	Sync(ctx context.Context) error
}

// Trail is the audit trail. Append returns when the record is durable. With a
// fence of 0 or more it fails with audit.ErrStale if the change feed's head is
// past the fence; audit.NoFence asks for no such check.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
	// Healthy is nil unless the last commit failed. While it is not, nothing
	// is asked of STS.
	Healthy() error
}

// History finds the audit record of an issue or renewal; storage.ErrNotFound
// says that there is none.
type History interface {
	FindIssue(ctx context.Context, credentialID string) (storage.AuditRecord, error)
}

// Observer is told of each call to STS. It must not block.
type Observer interface {
	// Called: one call ended after this long. packed is the share of the space
	// for policy and tags in percent, 0 where unknown; err is nil on success.
	Called(account string, took time.Duration, packed int, err error)
}

// Account is one STS with its budget.
type Account struct {
	Issuer issuer.Issuer
	// Rate is how many calls a second may be made, on average; required.
	Rate float64
	// MinLifetime and MaxLifetime bound what the account issues; required.
	MinLifetime, MaxLifetime time.Duration
	// MaxCalls bounds the calls in flight. Default 64.
	MaxCalls int
	// MaxName is how many characters the name of a session may have. Default
	// 32, and no less: what every STS takes.
	MaxName int
}

// Credential is one set of keys as a subscriber gets it. Whoever receives one
// by pointer shares it and must not change it.
type Credential struct {
	// ID is a UUIDv7.
	ID             string
	GrantID, Grant string
	AccessKeyID    string
	// SecretAccessKey and SessionToken go to the agent and nowhere else.
	SecretAccessKey, SessionToken secret.String
	// IssuedAt grows strictly from one credential of a lease to the next,
	// whatever the broker's clock does.
	IssuedAt time.Time
	// Expires is the end as STS gave it, never past the certificate's end.
	Expires        time.Time
	Location       storage.Location
	Prefix, Access string
	PolicyHash     string
	SessionName    string
}

// Problem says that a subscriber cannot be given a new credential now.
type Problem struct {
	GrantID string
	// Grant is the grant's name; empty where it was never seen.
	Grant string
	Err   *reason.Error
	// RetryAt is when the broker tries again. Zero: not until something
	// changes.
	RetryAt time.Time
	// GoodUntil is the end of the credential that the subscriber holds; it may
	// have passed. Zero: it holds none.
	GoodUntil time.Time
}

// Revoked says that the subscriber must stop using what it was given.
type Revoked struct {
	GrantID, Grant string
	// CredentialID names the one credential that was revoked; a fresh one
	// follows. Empty: everything under the grant, and none follows unless the
	// grant is allowed again.
	CredentialID string
	Err          *reason.Error
}

// Event is what a subscriber is told. Exactly one field is set.
type Event struct {
	Credential *Credential
	Problem    *Problem
	Revoked    *Revoked
}

// Held is a credential that an agent says it still has. Only ID is believed,
// and only after the audit trail has confirmed it.
type Held struct {
	ID      string
	Expires time.Time
}

// Subscriber takes a lease's events in order. Deliver is called with the
// lease locked: it must not block and must not call the Manager or the
// Subscription, and no lock that it takes may be held while calling those.
type Subscriber interface {
	Deliver(Event)
}
