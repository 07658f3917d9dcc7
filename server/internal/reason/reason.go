package reason

import (
	"errors"
	"fmt"
	"time"
)

// Reason is the stable name of one kind of refusal or failure. Clients decide
// by it; its text never changes once released.
type Reason string

// The reasons. Each has a row in the table below and a value in the API's
// ErrorReason; tests keep the three together.
const (
	// Requests.
	Internal       Reason = "INTERNAL"
	InvalidRequest Reason = "INVALID_REQUEST"
	NotFound       Reason = "NOT_FOUND"
	AlreadyExists  Reason = "ALREADY_EXISTS"
	EtagMismatch   Reason = "ETAG_MISMATCH"
	InUse          Reason = "IN_USE"
	CallNotAllowed Reason = "CALL_NOT_ALLOWED"
	RoleTooLow     Reason = "ROLE_TOO_LOW"
	RateLimited    Reason = "RATE_LIMITED"
	// The certificate.
	CertificateRequired        Reason = "CERTIFICATE_REQUIRED"
	CertificateIdentityInvalid Reason = "CERTIFICATE_IDENTITY_INVALID"
	TrustDomainForeign         Reason = "TRUST_DOMAIN_FOREIGN"
	CertificateExpired         Reason = "CERTIFICATE_EXPIRED"
	CertificateRevoked         Reason = "CERTIFICATE_REVOKED"
	CertificateEndsTooSoon     Reason = "CERTIFICATE_ENDS_TOO_SOON"
	// Who.
	TenantUnknown   Reason = "TENANT_UNKNOWN"
	TenantDisabled  Reason = "TENANT_DISABLED"
	AgentUnknown    Reason = "AGENT_UNKNOWN"
	AgentDisabled   Reason = "AGENT_DISABLED"
	ServiceUnknown  Reason = "SERVICE_UNKNOWN"
	OperatorUnknown Reason = "OPERATOR_UNKNOWN"
	UserDisabled    Reason = "USER_DISABLED"
	// The login.
	LoginRequired  Reason = "LOGIN_REQUIRED"
	LoginMalformed Reason = "LOGIN_MALFORMED"
	LoginRejected  Reason = "LOGIN_REJECTED"
	LoginDelayed   Reason = "LOGIN_DELAYED"
	LoginBusy      Reason = "LOGIN_BUSY"
	TenantMismatch Reason = "TENANT_MISMATCH"
	PasswordWeak   Reason = "PASSWORD_WEAK"
	// The session.
	TokenInvalid         Reason = "TOKEN_INVALID"
	TokenExpired         Reason = "TOKEN_EXPIRED"
	TokenCertificateBind Reason = "TOKEN_CERTIFICATE_MISMATCH"
	SessionEnded         Reason = "SESSION_ENDED"
	PasswordChanged      Reason = "PASSWORD_CHANGED"
	// Grants and credentials.
	GrantUnknown      Reason = "GRANT_UNKNOWN"
	GrantDisabled     Reason = "GRANT_DISABLED"
	GrantDeleted      Reason = "GRANT_DELETED"
	GrantChanged      Reason = "GRANT_CHANGED"
	GrantInvalid      Reason = "GRANT_INVALID"
	CredentialRevoked Reason = "CREDENTIAL_REVOKED"
	CredentialUnknown Reason = "CREDENTIAL_UNKNOWN"
	DelegationDenied  Reason = "DELEGATION_DENIED"
	// What the broker leans on.
	STSRefused         Reason = "STS_REFUSED"
	STSThrottled       Reason = "STS_THROTTLED"
	STSUnavailable     Reason = "STS_UNAVAILABLE"
	AuditUnavailable   Reason = "AUDIT_UNAVAILABLE"
	StorageUnavailable Reason = "STORAGE_UNAVAILABLE"
	KeyRotationBlocked Reason = "KEY_ROTATION_BLOCKED"
	// Streams.
	Draining          Reason = "DRAINING"
	BrokerBusy        Reason = "BROKER_BUSY"
	TooManyStreams    Reason = "TOO_MANY_STREAMS"
	TooManyMessages   Reason = "TOO_MANY_MESSAGES"
	SubscribeFirst    Reason = "SUBSCRIBE_FIRST"
	ReportTooFrequent Reason = "REPORT_TOO_FREQUENT"
	StreamStalled     Reason = "STREAM_STALLED"
	// Enrollment.
	JoinTokenInvalid Reason = "JOIN_TOKEN_INVALID"
	JoinTokenExpired Reason = "JOIN_TOKEN_EXPIRED"
	JoinTokenUsed    Reason = "JOIN_TOKEN_USED"
	RequestUnsigned  Reason = "CERTIFICATE_REQUEST_INVALID"
	NoAuthority      Reason = "NO_AUTHORITY"
)

// Row says what a reason means to whoever receives it.
type Row struct {
	Reason Reason
	// Transient: waiting helps, and the same call may succeed later with
	// nothing else changed. The others are permanent.
	Transient bool
	// Doc is one sentence, ending in what to do.
	Doc string
}

// Error is a refusal or failure with its reason. Message reaches the caller;
// Cause is for the log alone and may name what the caller must not know. No
// field ever holds a secret.
type Error struct {
	Reason  Reason
	Message string
	// RetryAfter is how long to wait before asking again; 0 says nothing.
	RetryAfter time.Duration
	// Metadata is public and goes with the reason, such as the grant's name.
	Metadata map[string]string
	Cause    error
}

// New makes an error with a public message: lower case, saying what to do.
func New(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...)}
}

// Because attaches the private cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// After attaches the time to wait.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// With attaches one public fact.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Metadata = make(map[string]string, len(e.Metadata)+1)
	for k, v := range e.Metadata {
		c.Metadata[k] = v
	}
	c.Metadata[key] = value
	return &c
}

// Error is for the log: it includes the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Reason, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Reason, e.Message)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Of gives the reason of an error, Internal where it carries none, and "" for
// nil.
func Of(err error) Reason {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Internal
}

// Is says whether err carries the reason.
func Is(err error, r Reason) bool { return err != nil && Of(err) == r }

// Transient says whether waiting may help with err.
func Transient(err error) bool {
	row, ok := Lookup(Of(err))
	return ok && row.Transient
}
