package sqlstore

import "github.com/stokerd/stoker/server/internal/storage"

// The tables. Times are microseconds since 1970 in UTC, lists and dictionaries
// JSON, empty values NULL.
var (
	tenants = newEntity("tenants", storage.KindTenant,
		func(v *storage.Tenant) *storage.Meta { return &v.Meta },
		func(v *storage.Tenant) []cell {
			return []cell{
				fixed(key("name", &v.Name)), text("display_name", &v.DisplayName), flag("disabled", &v.Disabled),
			}
		})

	users = newEntity("users", storage.KindUser,
		func(v *storage.User) *storage.Meta { return &v.Meta },
		func(v *storage.User) []cell {
			return []cell{
				fixed(key("tenant_id", &v.TenantID)), fixed(key("login", &v.Login)),
				text("password_hash", &v.PasswordHash), number("password_version", &v.PasswordVersion),
				flag("disabled", &v.Disabled),
			}
		})

	agents = newEntity("agents", storage.KindAgent,
		func(v *storage.Agent) *storage.Meta { return &v.Meta },
		func(v *storage.Agent) []cell {
			return []cell{
				fixed(key("tenant_id", &v.TenantID)), fixed(key("name", &v.Name)), flag("disabled", &v.Disabled),
				fixed(instant("certificates_after", &v.CertificatesAfter)),
			}
		})

	locations = newEntity("locations", storage.KindLocation,
		func(v *storage.Location) *storage.Meta { return &v.Meta },
		func(v *storage.Location) []cell {
			return []cell{
				fixed(key("name", &v.Name)), text("account", &v.Account), text("bucket", &v.Bucket),
				text("region", &v.Region), text("endpoint", &v.Endpoint), text("kms_key_arn", &v.KMSKeyARN),
			}
		})

	grants = newEntity("grants", storage.KindGrant,
		func(v *storage.Grant) *storage.Meta { return &v.Meta },
		func(v *storage.Grant) []cell {
			return []cell{
				fixed(key("tenant_id", &v.TenantID)), reference("user_id", &v.UserID),
				fixed(key("name", &v.Name)), key("location_id", &v.LocationID),
				text("prefix", &v.Prefix), text("access", &v.Access), list("actions", &v.Actions),
				number("lifetime_nanoseconds", (*int64)(&v.Lifetime)), flag("disabled", &v.Disabled),
			}
		})

	certificates = newEntity("certificates", storage.KindCertificate,
		func(v *storage.Certificate) *storage.Meta { return &v.Meta },
		func(v *storage.Certificate) []cell {
			return []cell{
				fixed(key("serial", &v.Serial)), text("thumbprint", &v.Thumbprint), text("subject", &v.Subject),
				reference("agent_id", &v.AgentID), instant("not_before", &v.NotBefore),
				instant("not_after", &v.NotAfter), instant("revoked_at", &v.RevokedAt),
				text("revocation_reason", &v.RevocationReason), fixed(reference("lineage", &v.Lineage)),
			}
		})

	sealedKeys = newEntity("sealed_keys", storage.KindSealedKey,
		func(v *storage.SealedKey) *storage.Meta { return &v.Meta },
		func(v *storage.SealedKey) []cell {
			return []cell{
				fixed(key("purpose", &v.Purpose)), blob("sealed", &v.Sealed, storage.MaxSealed),
				blob("public", &v.Public, storage.MaxSealed), instant("retired_at", &v.RetiredAt),
			}
		})

	revocations = newEntity("revocations", storage.KindRevocation,
		func(v *storage.Revocation) *storage.Meta { return &v.Meta },
		func(v *storage.Revocation) []cell {
			return []cell{
				fixed(key("target_kind", &v.TargetKind)), fixed(key("target_id", &v.TargetID)),
				text("target_name", &v.TargetName), reference("tenant_id", &v.TenantID),
				text("account", &v.Account), text("session_name", &v.SessionName),
				instant("denied_before", &v.Before), instant("denied_until", &v.Until),
				key("state", (*string)(&v.State)), text("problem", &v.Problem),
				text("reason", &v.Reason), text("operator", &v.Operator),
			}
		})

	tombstones = row[tombstone]{table: "tombstones",
		cells: func(v *tombstone) []cell { return []cell{key("name", &v.name), moment("deleted_at", &v.deletedAt)} }}

	endedSessions = row[storage.EndedSession]{table: "ended_sessions",
		cells: func(v *storage.EndedSession) []cell {
			return []cell{key("id", &v.ID), moment("expires_at", &v.Expires)}
		}}

	joinTokens = row[storage.JoinToken]{table: "join_tokens",
		cells: func(v *storage.JoinToken) []cell {
			return []cell{
				key("id", &v.ID), blob("hash", &v.Hash, storage.MaxText), key("tenant_id", &v.TenantID),
				key("agent_name", &v.AgentName), text("created_by", &v.CreatedBy),
				moment("created_at", &v.CreatedAt), moment("expires_at", &v.Expires),
				instant("used_at", &v.UsedAt),
			}
		}}

	changes = row[storage.Change]{table: "changes",
		cells: func(v *storage.Change) []cell {
			return []cell{
				number("sequence", &v.Sequence), key("kind", (*string)(&v.Kind)), key("entity_id", &v.ID),
			}
		}}

	auditRecords = row[storage.AuditRecord]{table: "audit_records",
		cells: func(v *storage.AuditRecord) []cell {
			return []cell{
				key("writer", &v.Writer), number("sequence", &v.Sequence), moment("recorded_at", &v.Time),
				key("event", &v.Event), reference("tenant_name", &v.Tenant), text("user_login", &v.Login),
				text("agent_name", &v.Agent), text("grant_name", &v.Grant),
				reference("credential_id", &v.CredentialID), reference("access_key_id", &v.AccessKeyID),
				reference("session_name", &v.SessionName), rest("rest", v),
			}
		}}

	auditHeads = row[storage.AuditHead]{table: "audit_heads",
		cells: func(v *storage.AuditHead) []cell {
			return []cell{
				key("writer", &v.Writer), number("sequence", &v.Sequence), text("hash", &v.Hash),
				blob("seal", &v.Seal, storage.MaxText), number("first_sequence", &v.First),
				text("first_previous_hash", &v.FirstPrevHash),
			}
		}}
)
