package audit

import "github.com/stokerd/stoker/server/internal/storage"

// Event names what a record tells of. Its text never changes once released.
type Event string

// The events. Each has its row in Events and in docs/audit.md; tests keep the
// three together, and Append refuses any other.
const (
	CredentialIssued   Event = storage.EventCredentialIssued
	CredentialRenewed  Event = storage.EventCredentialRenewed
	CredentialRefused  Event = "credential.refused"
	CredentialRejected Event = "credential.rejected"
	CredentialRevoked  Event = "credential.revoked"

	SessionCreated Event = "session.created"
	SessionRefused Event = "session.refused"
	SessionEnded   Event = "session.ended"
	StreamEnded    Event = "stream.ended"
	CallRefused    Event = "call.refused"

	DelegationIssued  Event = "delegation.issued"
	DelegationOpened  Event = "delegation.opened"
	DelegationRefused Event = "delegation.refused"
	AccountTried      Event = "account.tried"

	RevocationCreated Event = "revocation.created"
	RevocationApplied Event = "revocation.applied"
	RevocationFailed  Event = "revocation.failed"
	RevocationExpired Event = "revocation.expired"

	AgentInvited       Event = "agent.invited"
	AgentEnrolled      Event = "agent.enrolled"
	AgentRefused       Event = "agent.refused"
	CertificateIssued  Event = "certificate.issued"
	CertificateRenewed Event = "certificate.renewed"
	CertificateRefused Event = "certificate.refused"
	CertificateRevoked Event = "certificate.revoked"

	AdminCreated Event = "admin.created"
	AdminUpdated Event = "admin.updated"
	AdminDeleted Event = "admin.deleted"
	KeyRotated   Event = "key.rotated"

	AccountKeyRotated Event = "account.key_rotated"
	AccountKeyAdopted Event = "account.key_adopted"

	RulesChanged Event = "rules.changed"

	BrokerStarted Event = "broker.started"
	BrokerStopped Event = "broker.stopped"

	// The trail writes these itself.
	AuditCheckpoint Event = "audit.checkpoint"
	AuditResumed    Event = "audit.resumed"
	AuditTrimmed    Event = "audit.trimmed"
)

// EventRow says when an event is recorded.
type EventRow struct {
	Event Event
	// Doc is one sentence.
	Doc string
}

// Events lists every event once, in the order of the documentation.
var Events = []EventRow{
	{CredentialIssued, "A credential was issued for a lease that had none; it leaves the broker after this record is durable."},
	{CredentialRenewed, "A credential was issued to follow an earlier one of the same lease."},
	{CredentialRefused, "No credential was issued; reason says why."},
	{CredentialRejected, "The agent reported that S3 refused a credential; detail has S3's code."},
	{CredentialRevoked, "The agent was told that a credential is no longer good; reason says why."},

	{SessionCreated, "A login succeeded and an access token was made."},
	{SessionRefused, "A login or an access token was refused; reason says why."},
	{SessionEnded, "A session was ended before its token expired."},
	{StreamEnded, "A stream was cut off by the broker; reason says why."},
	{CallRefused, "A call was refused before it began, for who made it; reason says why."},

	{DelegationIssued, "A service got a credential for a tenant; detail has its purpose."},
	{DelegationOpened, "A service opened a stream for a tenant's grant; detail has its purpose, as have the records of what it is issued."},
	{DelegationRefused, "A service was refused a credential for a tenant; reason says why."},
	{AccountTried, "An operator is about to have the broker try a grant with a credential that is thrown away."},

	{RevocationCreated, "An operator cut a party off; it is in force in the broker from here on."},
	{RevocationApplied, "The account denies what had been issued to the party."},
	{RevocationFailed, "The account could not be told of a revocation; the broker tries again."},
	{RevocationExpired, "The last credential that a revocation concerned has expired, and the account's denial, if there was one, was removed."},

	{AgentInvited, "An operator made a join token."},
	{AgentEnrolled, "A new agent used its join token."},
	{AgentRefused, "A join token was refused; reason says why."},
	{CertificateIssued, "The broker's authority signed a first certificate."},
	{CertificateRenewed, "The broker's authority signed a certificate to follow another."},
	{CertificateRefused, "A request for a certificate was refused; reason says why."},
	{CertificateRevoked, "A certificate was revoked, by serial number."},

	{AdminCreated, "A tenant, user, agent, location or grant was created; detail has its fields."},
	{AdminUpdated, "One of them was changed; detail has the old and new values."},
	{AdminDeleted, "One of them was deleted, with all that belongs to it."},
	{KeyRotated, "A key of the broker was replaced; detail says which."},
	{AccountKeyRotated, "A step was made in the rotation of an account's long-term key; detail has the step."},
	{AccountKeyAdopted, "A broker uses the key that a rotation of an account's key switched to."},
	{RulesChanged, "A broker read its configuration again and took over its operators and services; detail has them."},

	{BrokerStarted, "A broker began to serve; detail has its version."},
	{BrokerStopped, "A broker ended in good order."},

	{AuditCheckpoint, "A writer noted where other writers' chains stand: as its first record, and once a day."},
	{AuditResumed, "The trail could be written again; detail says since when it could not, and how many records failed."},
	{AuditTrimmed, "The front of a chain is about to be removed by retention; detail names the chain and the last record removed."},
}

var known = func() map[Event]bool {
	m := make(map[Event]bool, len(Events))
	for _, row := range Events {
		m[row.Event] = true
	}
	return m
}()
