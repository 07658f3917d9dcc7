package audit

import (
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// field is one field of a record, in the order of the canonical encoding. Its
// name is the key in JSON lines and in docs/audit.md. Exactly one of the
// functions is set; they point into the record.
type field struct {
	name   string
	text   func(*storage.AuditRecord) *string
	number func(*storage.AuditRecord) *int64
	time   func(*storage.AuditRecord) *time.Time
	detail func(*storage.AuditRecord) *map[string]string
}

// hashField is the last of the fields, and the only one that is not hashed.
const hashField = "hash"

func text(name string, of func(*storage.AuditRecord) *string) field {
	return field{name: name, text: of}
}

// fields lists every field of storage.AuditRecord. The order and the names are
// part of the format: a change makes every existing record look altered.
var fields = []field{
	text("writer", func(r *storage.AuditRecord) *string { return &r.Writer }),
	{name: "sequence", number: func(r *storage.AuditRecord) *int64 { return &r.Sequence }},
	{name: "time", time: func(r *storage.AuditRecord) *time.Time { return &r.Time }},
	text("event", func(r *storage.AuditRecord) *string { return &r.Event }),
	text("reason", func(r *storage.AuditRecord) *string { return &r.Reason }),
	text("actor", func(r *storage.AuditRecord) *string { return &r.Actor }),
	text("certificate_serial", func(r *storage.AuditRecord) *string { return &r.CertificateSerial }),
	text("certificate_thumbprint", func(r *storage.AuditRecord) *string { return &r.CertificateThumbprint }),
	text("peer", func(r *storage.AuditRecord) *string { return &r.Peer }),
	text("request_id", func(r *storage.AuditRecord) *string { return &r.RequestID }),
	text("tenant_id", func(r *storage.AuditRecord) *string { return &r.TenantID }),
	text("tenant", func(r *storage.AuditRecord) *string { return &r.Tenant }),
	text("user_id", func(r *storage.AuditRecord) *string { return &r.UserID }),
	text("login", func(r *storage.AuditRecord) *string { return &r.Login }),
	text("agent_id", func(r *storage.AuditRecord) *string { return &r.AgentID }),
	text("agent", func(r *storage.AuditRecord) *string { return &r.Agent }),
	text("grant_id", func(r *storage.AuditRecord) *string { return &r.GrantID }),
	text("grant", func(r *storage.AuditRecord) *string { return &r.Grant }),
	text("session_id", func(r *storage.AuditRecord) *string { return &r.SessionID }),
	text("account", func(r *storage.AuditRecord) *string { return &r.Account }),
	text("credential_id", func(r *storage.AuditRecord) *string { return &r.CredentialID }),
	text("access_key_id", func(r *storage.AuditRecord) *string { return &r.AccessKeyID }),
	text("session_name", func(r *storage.AuditRecord) *string { return &r.SessionName }),
	text("policy_hash", func(r *storage.AuditRecord) *string { return &r.PolicyHash }),
	{name: "expire_time", time: func(r *storage.AuditRecord) *time.Time { return &r.Expires }},
	{name: "detail", detail: func(r *storage.AuditRecord) *map[string]string { return &r.Detail }},
	text("previous_hash", func(r *storage.AuditRecord) *string { return &r.PrevHash }),
	text(hashField, func(r *storage.AuditRecord) *string { return &r.Hash }),
}
