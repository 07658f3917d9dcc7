package storage

import "time"

// Kind names a sort of stored entity in the change feed.
type Kind string

// The kinds of entity whose changes are announced.
const (
	KindTenant      Kind = "tenant"
	KindUser        Kind = "user"
	KindAgent       Kind = "agent"
	KindLocation    Kind = "location"
	KindGrant       Kind = "grant"
	KindCertificate Kind = "certificate"
	KindSession     Kind = "session"
	KindSealedKey   Kind = "sealed_key"
	KindRevocation  Kind = "revocation"
)

// Limits of texts, in bytes. Longer ones are refused with ErrInvalid; whoever
// stores what a stranger typed cuts it first.
const (
	// MaxKey bounds what is looked up by: ids, names, logins, serials.
	MaxKey = 512
	// MaxText bounds every other text and list.
	MaxText = 64 << 10
	// MaxSealed bounds a sealed key and its public half.
	MaxSealed = 1 << 20
)

// The events of the audit trail that FindIssue looks for. The audit package
// lists all events.
const (
	EventCredentialIssued  = "credential.issued"
	EventCredentialRenewed = "credential.renewed"
)

// Meta is what every entity has. The caller makes ID (UUIDv7) before a create;
// the backend sets the rest.
type Meta struct {
	ID string
	// Revision is 1 after the create and grows by one with each update.
	Revision  int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Tenant is a customer of the provider.
type Tenant struct {
	Meta
	// Name is the slug, unique.
	Name        string
	DisplayName string
	Disabled    bool
}

// User is a login with a password inside one tenant.
type User struct {
	Meta
	TenantID string
	// Login is canonical (lower case) and unique in the tenant.
	Login string
	// PasswordHash is a PHC string (argon2id). Never shown.
	PasswordHash string
	// PasswordVersion grows with each change of the password; access tokens
	// carry it and die when it moves on.
	PasswordVersion int64
	Disabled        bool
}

// Agent is one enrolled installation.
type Agent struct {
	Meta
	TenantID string
	// Name is unique in the tenant.
	Name     string
	Disabled bool
	// CertificatesAfter is when the last agent of this name, or tenant of its
	// tenant's name, was deleted; zero: there was none. CreateAgent sets it.
	CertificatesAfter time.Time
}

// Location is a bucket and how to reach it.
type Location struct {
	Meta
	// Name is unique.
	Name string
	// Account names an account of the configuration.
	Account  string
	Bucket   string
	Region   string
	Endpoint string // empty: AWS
	// KMSKeyARN is empty where the bucket does not use SSE-KMS.
	KMSKeyARN string
}

// Grant lets a tenant, or one user of it, into a prefix of a location.
type Grant struct {
	Meta
	TenantID string
	// UserID is empty where every user of the tenant has the grant.
	UserID string
	// Name is unique in the tenant; agents ask for the grant by it.
	Name       string
	LocationID string
	Prefix     string
	// Access is backup, restore, maintain or actions.
	Access string
	// Actions is set where Access is actions.
	Actions  []string
	Lifetime time.Duration
	Disabled bool
}

// Certificate is one client certificate that the broker knows of: issued by
// its own authority, or of a foreign one and revoked here.
type Certificate struct {
	Meta
	// Serial is the serial number in lower-case hexadecimal, unique.
	Serial string
	// Thumbprint is the SHA-256 of the DER, lower-case hexadecimal. Empty
	// where only the serial is known.
	Thumbprint string
	// Subject is the SPIFFE ID.
	Subject string
	// AgentID is empty for services and operators.
	AgentID string
	// Lineage is the serial number of the first certificate of those that
	// descend from each other by renewal; empty: it is the first.
	Lineage          string
	NotBefore        time.Time
	NotAfter         time.Time
	RevokedAt        time.Time // zero: not revoked
	RevocationReason string
}

// EndedSession is a session that was deleted before its token expired. It is
// kept until the token would have expired.
type EndedSession struct {
	// ID is the token's identifier (jti).
	ID      string
	Expires time.Time
}

// SealedKey is a private key of the broker, encrypted by the caller.
type SealedKey struct {
	Meta
	// Purpose says what the key is for: token, audit, authority.
	Purpose string
	// Sealed is ciphertext; this package never sees the key.
	Sealed []byte
	// Public goes with the key and is not secret: a certificate in PEM.
	Public []byte
	// RetiredAt is when the key stopped making new signatures; zero: in use.
	RetiredAt time.Time
}

// JoinToken lets one new agent enroll once.
type JoinToken struct {
	// ID is the public half of the token.
	ID string
	// Hash is the SHA-256 of the secret half.
	Hash      []byte
	TenantID  string
	AgentName string
	CreatedBy string
	CreatedAt time.Time
	Expires   time.Time
	UsedAt    time.Time // zero: unused
}

// RevocationState is how far a revocation has come on the STS account.
type RevocationState string

// The states of a revocation. A revocation that the broker alone enforces
// (the account says nothing, or print) stays at RevocationLocal until it
// expires.
const (
	RevocationLocal   RevocationState = "local"
	RevocationPending RevocationState = "pending"
	RevocationApplied RevocationState = "applied"
	RevocationFailed  RevocationState = "failed"
	RevocationExpired RevocationState = "expired"
)

// Revocation is one act of cutting a party off.
type Revocation struct {
	Meta
	// TargetKind is tenant, user, agent, grant or credential; TargetID is the
	// entity's id, or the credential's.
	TargetKind string
	TargetID   string
	// TargetName is what the operator typed, for people.
	TargetName string
	TenantID   string
	// Account is where issued credentials are denied; one revocation a party
	// and account.
	Account string
	// SessionName narrows a single credential's revocation.
	SessionName string
	// Before is the moment: tokens issued earlier are denied.
	Before time.Time
	// Until is when the last token issued before Before has expired.
	Until    time.Time
	State    RevocationState
	Problem  string // why it failed last, for people
	Reason   string
	Operator string
}

// Change is one entry of the change feed.
type Change struct {
	// Sequence grows by one with each change, without gaps, in commit order.
	Sequence int64
	Kind     Kind
	ID       string
}

// Snapshot is everything the directory holds, at one moment of the feed.
type Snapshot struct {
	// Sequence is the last change that the snapshot includes.
	Sequence int64
	Tenants  []Tenant
	// Users have no PasswordHash here.
	Users     []User
	Agents    []Agent
	Locations []Location
	Grants    []Grant
	// RevokedCertificates are those revoked and not yet past their end.
	RevokedCertificates []Certificate
	EndedSessions       []EndedSession
	// Revocations are those not yet expired.
	Revocations []Revocation
}

// AuditRecord is one entry of the audit trail. Fields that do not apply are
// empty. It never holds a secret: no password, key, token or policy text.
type AuditRecord struct {
	// Writer is the broker process that wrote the record (a UUIDv7 made at
	// its start) and Sequence the record's place in that writer's chain,
	// from 1.
	Writer   string
	Sequence int64
	Time     time.Time
	// Event is what happened, such as credential.issued; the audit package
	// lists them.
	Event string
	// Reason is set on refusals and revocations: an error reason's name.
	Reason string
	// Actor is the SPIFFE ID of whoever caused it, or "broker".
	Actor                 string
	CertificateSerial     string
	CertificateThumbprint string
	Peer                  string // network address
	RequestID             string
	TenantID, Tenant      string
	UserID, Login         string
	AgentID, Agent        string
	GrantID, Grant        string
	SessionID             string
	Account               string
	CredentialID          string
	AccessKeyID           string
	SessionName           string
	// PolicyHash is the SHA-256 of the session policy, hexadecimal.
	PolicyHash string
	Expires    time.Time
	// Detail is what else a reader wants: old and new values of an
	// administrative change, the purpose of a delegation.
	Detail map[string]string
	// PrevHash is the hash of the writer's previous record, Hash that of
	// this one; hexadecimal.
	PrevHash string
	Hash     string
}

// AuditHead is the end of one writer's chain, sealed by the broker's audit key
// so that cutting records off the end is seen.
type AuditHead struct {
	Writer   string
	Sequence int64
	Hash     string
	// Seal is an HMAC over the other fields.
	Seal []byte
	// First is the lowest sequence still kept: 1, or where retention trimmed
	// the chain; FirstPrevHash is the hash of the record before it. Both are
	// under the seal.
	First         int64
	FirstPrevHash string
}

// AuditBatch is what one durable append stores.
type AuditBatch struct {
	Records []AuditRecord
	Head    AuditHead
}

// AuditFilter selects records; empty fields select all. Times are half open:
// After <= t < Before.
type AuditFilter struct {
	After, Before time.Time
	Events        []string
	Tenant        string
	Login         string
	Agent         string
	Grant         string
	CredentialID  string
	AccessKeyID   string
	SessionName   string
	Writer        string
}

// AuditCursor is a place in the trail for paging: records come ordered by
// (Time, Writer, Sequence).
type AuditCursor struct {
	Time     time.Time
	Writer   string
	Sequence int64
}
