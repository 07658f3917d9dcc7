package reason

// Table lists every reason once, in the order of the documentation.
var Table = []Row{
	{Internal, true, "The broker failed in a way that it does not explain to callers; give the request id to the provider."},
	{InvalidRequest, false, "A field is missing, too long or malformed; the message names it."},
	{NotFound, false, "No such resource; check its name."},
	{AlreadyExists, false, "The name is taken; choose another or update the existing resource."},
	{EtagMismatch, false, "The resource changed since it was read; read it again and repeat the change."},
	{InUse, false, "Other resources still refer to this one; remove those first."},
	{CallNotAllowed, false, "This kind of caller may not make this call; use the right certificate."},
	{RoleTooLow, false, "The operator's role does not allow this call; ask for a higher role."},
	{RateLimited, true, "Too many requests from this caller; wait as told."},

	{CertificateRequired, false, "The call came without a client certificate; present one."},
	{CertificateIdentityInvalid, false, "The certificate must carry exactly one URI SAN that is a Stoker identity; get a new certificate."},
	{TrustDomainForeign, false, "The certificate belongs to another trust domain; connect to the broker that issued it."},
	{CertificateExpired, false, "The certificate is past its end; get a new one."},
	{CertificateRevoked, false, "The certificate was revoked; enroll again."},
	{CertificateEndsTooSoon, false, "The certificate ends before the shortest credential would; renew the certificate."},

	{TenantUnknown, false, "The certificate's tenant does not exist here; ask the provider."},
	{TenantDisabled, false, "The provider has disabled the tenant; ask the provider."},
	{AgentUnknown, false, "The certificate's agent does not exist here; enroll again."},
	{AgentDisabled, false, "The provider has disabled the agent; ask the provider."},
	{ServiceUnknown, false, "The broker's configuration names no such service; add it."},
	{OperatorUnknown, false, "The broker's configuration names no such operator; add it."},
	{UserDisabled, false, "The user has been disabled; ask the provider."},

	{LoginRequired, false, "The call needs a user's login; send authorization metadata."},
	{LoginMalformed, false, "The authorization metadata is not Basic login@tenant:password nor Bearer token; correct it."},
	{LoginRejected, false, "The login or the password is wrong; correct it."},
	{LoginDelayed, true, "Too many wrong logins with this certificate; wait as told."},
	{LoginBusy, true, "The broker checks as many passwords as it can; wait as told."},
	{TenantMismatch, false, "The login belongs to another tenant than the certificate; use a login of the agent's tenant."},
	{PasswordWeak, false, "The password is too short, too long or well known; choose another."},

	{TokenInvalid, false, "The access token was not made by this broker or was altered; log in again."},
	{TokenExpired, false, "The access token has expired; log in again."},
	{TokenCertificateBind, false, "The access token was made with another certificate; log in with this one."},
	{SessionEnded, false, "The session was ended; log in again."},
	{PasswordChanged, false, "The password changed since the session began; log in with the new one."},

	{GrantUnknown, false, "The user has no grant of this name; check the name with ListGrants."},
	{GrantDisabled, false, "The provider has disabled the grant; ask the provider."},
	{GrantDeleted, false, "The provider has deleted the grant; stop using its credentials."},
	{GrantChanged, false, "The grant changed; a credential under the new terms follows."},
	{GrantInvalid, false, "No session policy can be made of the grant; the provider must correct it."},
	{CredentialRevoked, false, "The credential was revoked; stop using it."},
	{CredentialUnknown, false, "The broker did not issue this credential to this caller; check the id."},
	{DelegationDenied, false, "No rule lets this service act for the tenant with this access; ask the provider."},

	{STSRefused, false, "The STS refused the request for good; the provider must correct the account or the grant."},
	{STSThrottled, true, "The STS is throttling the broker; the broker tries again by itself."},
	{STSUnavailable, true, "The STS cannot be reached or fails; the broker tries again by itself."},
	{AuditUnavailable, true, "The audit trail cannot be written, so nothing is issued; wait."},
	{StorageUnavailable, true, "The broker's storage does not answer; wait."},
	{KeyRotationBlocked, false, "The account's key cannot be rotated as things stand; do what the message says and run it again."},

	{Draining, true, "The broker is shutting down; reconnect as told."},
	{BrokerBusy, true, "The broker lets in as many agents at once, or has as many connections, as it can; wait as told, or go to another."},
	{TooManyStreams, true, "The agent has too many open streams; close some."},
	{TooManyMessages, true, "The stream sent more messages than allowed; slow down."},
	{SubscribeFirst, false, "The first message of a stream must be a subscription; send one."},
	{ReportTooFrequent, true, "Refused credentials are replaced at a limited rate; wait as told."},
	{StreamStalled, true, "The agent did not read what was sent to it; reconnect, and read."},

	{JoinTokenInvalid, false, "The join token is not one of this broker's; ask for a new one."},
	{JoinTokenExpired, false, "The join token has expired; ask for a new one."},
	{JoinTokenUsed, false, "The join token was used before; ask for a new one, and find out by whom."},
	{RequestUnsigned, false, "The certificate request is malformed, weak or not signed by its key; make a new one."},
	{NoAuthority, false, "The broker has no certificate authority of its own; get the certificate from the provider's PKI."},
}

var byReason = func() map[Reason]Row {
	m := make(map[Reason]Row, len(Table))
	for _, row := range Table {
		m[row.Reason] = row
	}
	return m
}()

// Lookup finds a reason's row.
func Lookup(r Reason) (Row, bool) {
	row, ok := byReason[r]
	return row, ok
}
