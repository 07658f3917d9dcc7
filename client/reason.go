package client

// Reason is the broker's stable name for one kind of refusal or failure, as
// errors.proto documents it: google.rpc.ErrorInfo.reason. Decide by it, never
// by a message.
type Reason string

// The reasons that a broker gives.
const (
	// Requests.
	ReasonInternal       Reason = "INTERNAL"
	ReasonInvalidRequest Reason = "INVALID_REQUEST"
	ReasonNotFound       Reason = "NOT_FOUND"
	ReasonAlreadyExists  Reason = "ALREADY_EXISTS"
	ReasonEtagMismatch   Reason = "ETAG_MISMATCH"
	ReasonInUse          Reason = "IN_USE"
	ReasonCallNotAllowed Reason = "CALL_NOT_ALLOWED"
	ReasonRoleTooLow     Reason = "ROLE_TOO_LOW"
	ReasonRateLimited    Reason = "RATE_LIMITED"
	// The certificate.
	ReasonCertificateRequired        Reason = "CERTIFICATE_REQUIRED"
	ReasonCertificateIdentityInvalid Reason = "CERTIFICATE_IDENTITY_INVALID"
	ReasonTrustDomainForeign         Reason = "TRUST_DOMAIN_FOREIGN"
	ReasonCertificateExpired         Reason = "CERTIFICATE_EXPIRED"
	ReasonCertificateRevoked         Reason = "CERTIFICATE_REVOKED"
	ReasonCertificateEndsTooSoon     Reason = "CERTIFICATE_ENDS_TOO_SOON"
	// Who.
	ReasonTenantUnknown   Reason = "TENANT_UNKNOWN"
	ReasonTenantDisabled  Reason = "TENANT_DISABLED"
	ReasonAgentUnknown    Reason = "AGENT_UNKNOWN"
	ReasonAgentDisabled   Reason = "AGENT_DISABLED"
	ReasonServiceUnknown  Reason = "SERVICE_UNKNOWN"
	ReasonOperatorUnknown Reason = "OPERATOR_UNKNOWN"
	ReasonUserDisabled    Reason = "USER_DISABLED"
	// The login.
	ReasonLoginRequired  Reason = "LOGIN_REQUIRED"
	ReasonLoginMalformed Reason = "LOGIN_MALFORMED"
	ReasonLoginRejected  Reason = "LOGIN_REJECTED"
	ReasonLoginDelayed   Reason = "LOGIN_DELAYED"
	ReasonLoginBusy      Reason = "LOGIN_BUSY"
	ReasonTenantMismatch Reason = "TENANT_MISMATCH"
	ReasonPasswordWeak   Reason = "PASSWORD_WEAK"
	// The session.
	ReasonTokenInvalid             Reason = "TOKEN_INVALID"
	ReasonTokenExpired             Reason = "TOKEN_EXPIRED"
	ReasonTokenCertificateMismatch Reason = "TOKEN_CERTIFICATE_MISMATCH"
	ReasonSessionEnded             Reason = "SESSION_ENDED"
	ReasonPasswordChanged          Reason = "PASSWORD_CHANGED"
	// Grants and credentials.
	ReasonGrantUnknown      Reason = "GRANT_UNKNOWN"
	ReasonGrantDisabled     Reason = "GRANT_DISABLED"
	ReasonGrantDeleted      Reason = "GRANT_DELETED"
	ReasonGrantChanged      Reason = "GRANT_CHANGED"
	ReasonGrantInvalid      Reason = "GRANT_INVALID"
	ReasonCredentialRevoked Reason = "CREDENTIAL_REVOKED"
	ReasonCredentialUnknown Reason = "CREDENTIAL_UNKNOWN"
	ReasonDelegationDenied  Reason = "DELEGATION_DENIED"
	// What the broker leans on.
	ReasonSTSRefused         Reason = "STS_REFUSED"
	ReasonSTSThrottled       Reason = "STS_THROTTLED"
	ReasonSTSUnavailable     Reason = "STS_UNAVAILABLE"
	ReasonAuditUnavailable   Reason = "AUDIT_UNAVAILABLE"
	ReasonStorageUnavailable Reason = "STORAGE_UNAVAILABLE"
	ReasonKeyRotationBlocked Reason = "KEY_ROTATION_BLOCKED"
	// Streams.
	ReasonDraining          Reason = "DRAINING"
	ReasonBrokerBusy        Reason = "BROKER_BUSY"
	ReasonTooManyStreams    Reason = "TOO_MANY_STREAMS"
	ReasonTooManyMessages   Reason = "TOO_MANY_MESSAGES"
	ReasonSubscribeFirst    Reason = "SUBSCRIBE_FIRST"
	ReasonReportTooFrequent Reason = "REPORT_TOO_FREQUENT"
	ReasonStreamStalled     Reason = "STREAM_STALLED"
	// Enrollment.
	ReasonJoinTokenInvalid          Reason = "JOIN_TOKEN_INVALID"
	ReasonJoinTokenExpired          Reason = "JOIN_TOKEN_EXPIRED"
	ReasonJoinTokenUsed             Reason = "JOIN_TOKEN_USED"
	ReasonCertificateRequestInvalid Reason = "CERTIFICATE_REQUEST_INVALID"
	ReasonNoAuthority               Reason = "NO_AUTHORITY"
)

// transient says for every reason whether waiting helps. A test compares it
// with errors.proto.
var transient = map[Reason]bool{
	ReasonInternal:                   true,
	ReasonInvalidRequest:             false,
	ReasonNotFound:                   false,
	ReasonAlreadyExists:              false,
	ReasonEtagMismatch:               false,
	ReasonInUse:                      false,
	ReasonCallNotAllowed:             false,
	ReasonRoleTooLow:                 false,
	ReasonRateLimited:                true,
	ReasonCertificateRequired:        false,
	ReasonCertificateIdentityInvalid: false,
	ReasonTrustDomainForeign:         false,
	ReasonCertificateExpired:         false,
	ReasonCertificateRevoked:         false,
	ReasonCertificateEndsTooSoon:     false,
	ReasonTenantUnknown:              false,
	ReasonTenantDisabled:             false,
	ReasonAgentUnknown:               false,
	ReasonAgentDisabled:              false,
	ReasonServiceUnknown:             false,
	ReasonOperatorUnknown:            false,
	ReasonUserDisabled:               false,
	ReasonLoginRequired:              false,
	ReasonLoginMalformed:             false,
	ReasonLoginRejected:              false,
	ReasonLoginDelayed:               true,
	ReasonLoginBusy:                  true,
	ReasonTenantMismatch:             false,
	ReasonPasswordWeak:               false,
	ReasonTokenInvalid:               false,
	ReasonTokenExpired:               false,
	ReasonTokenCertificateMismatch:   false,
	ReasonSessionEnded:               false,
	ReasonPasswordChanged:            false,
	ReasonGrantUnknown:               false,
	ReasonGrantDisabled:              false,
	ReasonGrantDeleted:               false,
	ReasonGrantChanged:               false,
	ReasonGrantInvalid:               false,
	ReasonCredentialRevoked:          false,
	ReasonCredentialUnknown:          false,
	ReasonDelegationDenied:           false,
	ReasonSTSRefused:                 false,
	ReasonSTSThrottled:               true,
	ReasonSTSUnavailable:             true,
	ReasonAuditUnavailable:           true,
	ReasonStorageUnavailable:         true,
	ReasonKeyRotationBlocked:         false,
	ReasonDraining:                   true,
	ReasonBrokerBusy:                 true,
	ReasonTooManyStreams:             true,
	ReasonTooManyMessages:            true,
	ReasonSubscribeFirst:             false,
	ReasonReportTooFrequent:          true,
	ReasonStreamStalled:              true,
	ReasonJoinTokenInvalid:           false,
	ReasonJoinTokenExpired:           false,
	ReasonJoinTokenUsed:              false,
	ReasonCertificateRequestInvalid:  false,
	ReasonNoAuthority:                false,
}

// Transient says whether waiting may help: the same call may succeed later with
// nothing else changed. After the other, permanent reasons it fails again until
// somebody corrects something. A reason that this version does not know, and
// the empty one (no broker answered), count as transient: trying again slowly
// harms nobody, giving up on a newer broker would.
func Transient(r Reason) bool {
	t, known := transient[r]
	return t || !known
}

// loginHelps says whether a reason means that only the access token is of no
// use any more, so that the source logs in again by itself.
func (r Reason) loginHelps() bool {
	switch r {
	case ReasonTokenExpired, ReasonTokenInvalid, ReasonTokenCertificateMismatch,
		ReasonSessionEnded, ReasonPasswordChanged:
		return true
	}
	return false
}

// cutsOff says whether a reason means that the provider has taken away what was
// given: its credentials are not to be used to their end.
func (r Reason) cutsOff() bool {
	switch r {
	case ReasonTenantUnknown, ReasonTenantDisabled, ReasonAgentUnknown, ReasonAgentDisabled, ReasonUserDisabled,
		ReasonCertificateRevoked, ReasonGrantUnknown, ReasonGrantDisabled, ReasonGrantDeleted,
		ReasonServiceUnknown, ReasonDelegationDenied:
		return true
	}
	return false
}
