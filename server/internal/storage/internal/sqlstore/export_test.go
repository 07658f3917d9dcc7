package sqlstore

import "github.com/stokerd/stoker/server/internal/storage"

// AuditQuery is the query of ListAudit.
func AuditQuery(f storage.AuditFilter, after *storage.AuditCursor) (string, []any) {
	return auditQuery(f, after, 100)
}

// IssueQuery is the query of FindIssue.
func IssueQuery() (string, []any) {
	return auditRecords.selection() + issueOf, []any{"c", storage.EventCredentialIssued, storage.EventCredentialRenewed}
}
