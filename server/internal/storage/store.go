package storage

import (
	"context"
	"time"
)

// Store is a whole backend. Consumers ask for the narrow interfaces below.
//
// All calls are safe for concurrent use and honor their context. Each write is
// one transaction, durable when the call returns, and appends its Change in
// the same transaction. Times are kept to the microsecond, in UTC. What a
// write returns is what a later read gives.
type Store interface {
	Tenants
	Users
	Agents
	Locations
	Grants
	Certificates
	Sessions
	Keys
	JoinTokens
	Revocations
	Feed
	Audit
	// Ping answers nil if a write works now: it commits one, to a row that
	// nothing else reads, because a full disk shows at the commit alone.
	Ping(ctx context.Context) error
	// Close ends all work and releases the backend: calls in progress and
	// later ones answer ErrUnavailable, watches end. Closing again is no
	// error.
	Close() error
}

// Page selects a part of a list ordered by name: at most Limit (> 0) entries
// after the given one. For users the name is the login.
type Page struct {
	After string
	Limit int
}

// Tenants keeps tenants.
type Tenants interface {
	// CreateTenant stores a new tenant. ErrExists: the name is taken.
	CreateTenant(ctx context.Context, t Tenant) (Tenant, error)
	// GetTenant finds a tenant by id. ErrNotFound.
	GetTenant(ctx context.Context, id string) (Tenant, error)
	ListTenants(ctx context.Context, p Page) ([]Tenant, error)
	// UpdateTenant replaces the tenant with this id if its revision is still
	// t.Revision, else ErrConflict. ErrNotFound. The name cannot change:
	// another one is ErrInvalid, as is another tenant in the interfaces below.
	UpdateTenant(ctx context.Context, t Tenant) (Tenant, error)
	// DeleteTenant removes the tenant with its users, agents, grants and join
	// tokens, each with its Change. ErrConflict as in UpdateTenant; revision 0
	// deletes whatever is there. ErrNotFound.
	DeleteTenant(ctx context.Context, id string, revision int64) error
}

// Users keeps users. The rules are those of Tenants, inside one tenant; an
// unknown tenant is ErrNotFound.
type Users interface {
	CreateUser(ctx context.Context, u User) (User, error)
	GetUser(ctx context.Context, id string) (User, error)
	ListUsers(ctx context.Context, tenantID string, p Page) ([]User, error)
	UpdateUser(ctx context.Context, u User) (User, error)
	// DeleteUser removes the user and the grants that are the user's alone.
	DeleteUser(ctx context.Context, id string, revision int64) error
}

// Agents keeps agents. The rules are those of Users. With an agent, deleted by
// itself or with its tenant, its certificates are revoked and its unused join
// tokens removed: neither may serve the next agent of that name. That one's
// CertificatesAfter tells of those that the broker has not seen.
type Agents interface {
	CreateAgent(ctx context.Context, a Agent) (Agent, error)
	GetAgent(ctx context.Context, id string) (Agent, error)
	ListAgents(ctx context.Context, tenantID string, p Page) ([]Agent, error)
	UpdateAgent(ctx context.Context, a Agent) (Agent, error)
	DeleteAgent(ctx context.Context, id string, revision int64) error
}

// Locations keeps locations. The rules are those of Tenants.
type Locations interface {
	CreateLocation(ctx context.Context, l Location) (Location, error)
	GetLocation(ctx context.Context, id string) (Location, error)
	ListLocations(ctx context.Context, p Page) ([]Location, error)
	UpdateLocation(ctx context.Context, l Location) (Location, error)
	// DeleteLocation answers ErrInUse while a grant refers to the location.
	DeleteLocation(ctx context.Context, id string, revision int64) error
}

// Grants keeps grants. The rules are those of Users; an unknown tenant, user
// or location, and a user of another tenant, is ErrNotFound.
type Grants interface {
	CreateGrant(ctx context.Context, g Grant) (Grant, error)
	GetGrant(ctx context.Context, id string) (Grant, error)
	ListGrants(ctx context.Context, tenantID string, p Page) ([]Grant, error)
	UpdateGrant(ctx context.Context, g Grant) (Grant, error)
	DeleteGrant(ctx context.Context, id string, revision int64) error
}

// Certificates keeps what is known of client certificates.
type Certificates interface {
	// RecordCertificate stores a newly issued certificate. c.Lineage may name
	// any certificate of its line, such as the one that it follows; the first is
	// stored. ErrExists: the serial is known. ErrNotFound: its agent is not
	// there any more. ErrConflict: one of its line is revoked.
	RecordCertificate(ctx context.Context, c Certificate) (Certificate, error)
	GetCertificate(ctx context.Context, id string) (Certificate, error)
	// CertificatesOf lists an agent's certificates, latest end first.
	CertificatesOf(ctx context.Context, agentID string) ([]Certificate, error)
	// RevokeCertificate marks the serial revoked, recording it first if it is
	// unknown (it then needs an ID), and with it all of its line that are in
	// date. A zero RevokedAt is now. Revoking again keeps the first time and
	// reason.
	RevokeCertificate(ctx context.Context, c Certificate) (Certificate, error)
}

// Sessions keeps the sessions that ended before their tokens did.
type Sessions interface {
	// EndSession remembers s; again is no error.
	EndSession(ctx context.Context, s EndedSession) error
	// GetEndedSession answers ErrNotFound where the session has not been
	// ended, or was swept.
	GetEndedSession(ctx context.Context, id string) (EndedSession, error)
	// SweepSessions forgets those whose tokens expired before the moment. A
	// sweep is no change: nobody could use them any more.
	SweepSessions(ctx context.Context, before time.Time) (int64, error)
}

// Keys keeps the broker's sealed keys.
type Keys interface {
	// AddKey stores a new key and retires those of the same purpose that were
	// in use, if and only if the current one in use has the id replaces
	// (empty: none is in use); else ErrConflict. So that of two replicas
	// which start together one makes the key and the other reads it.
	AddKey(ctx context.Context, k SealedKey, replaces string) (SealedKey, error)
	// ListKeys gives all keys of a purpose, or of every purpose where it is
	// empty, newest first, retired ones too.
	ListKeys(ctx context.Context, purpose string) ([]SealedKey, error)
	// ResealKeys replaces what is sealed of every key, of any purpose and
	// retired ones too, by what reseal gives for it. It is one step: after an
	// error, which may be reseal's, all are as before. reseal may be asked more
	// than once of a key.
	ResealKeys(ctx context.Context, reseal func(SealedKey) ([]byte, error)) error
	DeleteKey(ctx context.Context, id string) error
}

// JoinTokens keeps invitations of new agents.
type JoinTokens interface {
	CreateJoinToken(ctx context.Context, t JoinToken) error
	GetJoinToken(ctx context.Context, id string) (JoinToken, error)
	// UseJoinToken marks the token used at the moment. Of callers at once one
	// succeeds, the others get ErrConflict. ErrNotFound.
	UseJoinToken(ctx context.Context, id string, at time.Time) error
	// SweepJoinTokens forgets those that expired before the moment.
	SweepJoinTokens(ctx context.Context, before time.Time) (int64, error)
}

// Revocations keeps acts of revocation and how far each has come.
type Revocations interface {
	CreateRevocation(ctx context.Context, r Revocation) (Revocation, error)
	GetRevocation(ctx context.Context, id string) (Revocation, error)
	// ListRevocations gives the newest first, expired ones too where all is
	// set; p.After is an id.
	ListRevocations(ctx context.Context, all bool, p Page) ([]Revocation, error)
	UpdateRevocation(ctx context.Context, r Revocation) (Revocation, error)
}

// Feed tells what changed, to every replica.
type Feed interface {
	// Load reads everything at one moment.
	Load(ctx context.Context) (Snapshot, error)
	// Head is the sequence of the last committed change; 0 before any.
	Head(ctx context.Context) (int64, error)
	// Changes lists those after the sequence, oldest first, at most limit.
	// If entries after the sequence have been trimmed, or the sequence is
	// beyond the head because the backend was restored from a backup, it
	// answers ErrNotFound: the caller must Load again.
	Changes(ctx context.Context, after int64, limit int) ([]Change, error)
	// Watch returns a channel that gets a value soon after each commit,
	// whichever replica made it. Values coalesce, and one may be lost with a
	// connection: a reader also asks for Head from time to time. The channel
	// closes when ctx ends and when the store is closed.
	Watch(ctx context.Context) (<-chan struct{}, error)
}

// Audit keeps the audit trail. Records are only ever appended, and removed
// from the front of a chain by TrimAudit.
type Audit interface {
	// AppendAudit stores what build returns, in one transaction that is
	// durable (fsynced) when the call returns nil. build is given the change
	// feed's head, which cannot move until the transaction has ended: what
	// build decides from it is true at the moment of the commit. If build
	// fails nothing is stored and its error is returned. build may be called
	// again when a transaction has to be repeated; it must be quick and must
	// not call the store. An empty batch stores nothing and is no error.
	// The records are one writer's, in sequence, and the head is their end,
	// else ErrInvalid. ErrConflict: the batch does not follow the writer's
	// stored head, which has moved on or was trimmed (another First): read it
	// again.
	AppendAudit(ctx context.Context, build func(head int64) (AuditBatch, error)) error
	// ListAudit gives records in the order of AuditCursor, after the cursor
	// (nil: from the start), at most limit.
	ListAudit(ctx context.Context, f AuditFilter, after *AuditCursor, limit int) ([]AuditRecord, error)
	// AuditChain gives one writer's records from a sequence on, in order.
	AuditChain(ctx context.Context, writer string, from int64, limit int) ([]AuditRecord, error)
	AuditHeads(ctx context.Context) ([]AuditHead, error)
	// FindIssue finds the issue or renewal record of a credential by id.
	// ErrNotFound.
	FindIssue(ctx context.Context, credentialID string) (AuditRecord, error)
	// TrimAudit removes the writer's records below head.First and stores the
	// head, in one transaction: trim a long front in steps. ErrNotFound: there
	// is no such writer. ErrConflict: the stored head has another Sequence,
	// because the writer went on, or a higher First: read it again.
	TrimAudit(ctx context.Context, head AuditHead) error
}
