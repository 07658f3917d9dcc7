package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/stokerd/stoker/server/internal/storage"
)

// replaceHead stores the end of a chain if it follows the stored one: the
// last parameters are the sequence that the stored head must have. A writer's
// first head is always stored.
const replaceHead = `INSERT INTO audit_heads (writer, sequence, hash, seal, first_sequence, first_previous_hash)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (writer) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, seal = excluded.seal
WHERE audit_heads.sequence = $7 AND audit_heads.first_sequence = excluded.first_sequence`

// AppendAudit implements storage.Audit.
func (s *Store) AppendAudit(ctx context.Context, build func(head int64) (storage.AuditBatch, error)) error {
	return s.write(ctx, "append audit", holding, func(t *tx) error {
		batch, err := build(t.head)
		if err != nil {
			return &foreignError{err}
		}
		if len(batch.Records) == 0 {
			return nil
		}
		if err := checkBatch(batch); err != nil {
			return err
		}
		if err := t.storeHead(batch); err != nil {
			return err
		}
		err = s.insertAudit.run(t, len(batch.Records), func(i int) ([]any, error) {
			record := batch.Records[i] // the caller's stays as it is
			return auditRecords.values(&record)
		})
		if err != nil && !isDomain(err) && s.dialect.Fault(err) == FaultTaken {
			return fmt.Errorf("%w: a record of this writer has the sequence already", storage.ErrConflict)
		}
		return err
	})
}

// checkBatch refuses what is no piece of one chain.
func checkBatch(b storage.AuditBatch) error {
	last := b.Records[len(b.Records)-1].Sequence
	if b.Head.Sequence != last {
		return fmt.Errorf("%w: the head is at %d, the last record at %d", storage.ErrInvalid, b.Head.Sequence, last)
	}
	for i, r := range b.Records {
		if r.Writer != b.Head.Writer {
			return fmt.Errorf("%w: record %d and the head have different writers", storage.ErrInvalid, r.Sequence)
		}
		if want := b.Records[0].Sequence + int64(i); r.Sequence != want {
			return fmt.Errorf("%w: record %d stands where %d should", storage.ErrInvalid, r.Sequence, want)
		}
	}
	return nil
}

func (t *tx) storeHead(b storage.AuditBatch) error {
	values, err := auditHeads.values(&b.Head)
	if err != nil {
		return err
	}
	n, err := t.exec(replaceHead, append(values, b.Records[0].Sequence-1)...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: the writer's chain is elsewhere", storage.ErrConflict)
	}
	return err
}

// ListAudit implements storage.Audit.
func (s *Store) ListAudit(ctx context.Context, f storage.AuditFilter, after *storage.AuditCursor, limit int) (found []storage.AuditRecord, err error) {
	err = s.read(ctx, "list audit", func(ctx context.Context, q querier) error {
		if err := checkLimit(limit); err != nil {
			return err
		}
		query, args := auditQuery(f, after, limit)
		found, err = auditRecords.list(ctx, q, query, args...)
		return err
	})
	return found, err
}

func auditQuery(f storage.AuditFilter, after *storage.AuditCursor, limit int) (string, []any) {
	c := &conditions{}
	if !f.After.IsZero() {
		c.add("recorded_at >= ?", f.After.UnixMicro())
	}
	if !f.Before.IsZero() {
		c.add("recorded_at < ?", f.Before.UnixMicro())
	}
	if len(f.Events) > 0 {
		events := make([]any, len(f.Events))
		for i, e := range f.Events {
			events[i] = e
		}
		c.add("event IN (?"+strings.Repeat(", ?", len(events)-1)+")", events...)
	}
	tenant := "tenant_name = ?"
	if f.CredentialID != "" || f.AccessKeyID != "" || f.SessionName != "" {
		// These find few records. The tenant's index, which has many, must not
		// look better to the database: an expression is in no index.
		tenant = "tenant_name || '' = ?"
	}
	c.addText(tenant, f.Tenant)
	c.addText("user_login = ?", f.Login)
	c.addText("agent_name = ?", f.Agent)
	c.addText("grant_name = ?", f.Grant)
	c.addText("credential_id = ?", f.CredentialID)
	c.addText("access_key_id = ?", f.AccessKeyID)
	c.addText("session_name = ?", f.SessionName)
	c.addText("writer = ?", f.Writer)
	if after != nil {
		c.add("(recorded_at, writer, sequence) > (?, ?, ?)", after.Time.UnixMicro(), after.Writer, after.Sequence)
	}
	return auditRecords.selection() + c.where() +
		" ORDER BY recorded_at, writer, sequence LIMIT " + strconv.Itoa(limit), c.args
}

// AuditChain implements storage.Audit.
func (s *Store) AuditChain(ctx context.Context, writer string, from int64, limit int) (found []storage.AuditRecord, err error) {
	err = s.read(ctx, "read audit chain", func(ctx context.Context, q querier) error {
		if err := checkLimit(limit); err != nil {
			return err
		}
		found, err = auditRecords.list(ctx, q, auditRecords.selection()+
			"WHERE writer = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3", writer, from, limit)
		return err
	})
	return found, err
}

// AuditHeads implements storage.Audit.
func (s *Store) AuditHeads(ctx context.Context) (found []storage.AuditHead, err error) {
	err = s.read(ctx, "read audit heads", func(ctx context.Context, q querier) error {
		found, err = auditHeads.list(ctx, q, auditHeads.selection()+"ORDER BY writer")
		return err
	})
	return found, err
}

// FindIssue implements storage.Audit.
func (s *Store) FindIssue(ctx context.Context, credentialID string) (found storage.AuditRecord, err error) {
	err = s.read(ctx, "find issue", func(ctx context.Context, q querier) error {
		found, err = auditRecords.get(ctx, q, issueOf, credentialID,
			storage.EventCredentialIssued, storage.EventCredentialRenewed)
		return err
	})
	return found, err
}

// issueOf finds few records, by the index of credentials.
const issueOf = "WHERE credential_id = $1 AND event IN ($2, $3) ORDER BY recorded_at LIMIT 1"

// TrimAudit implements storage.Audit.
func (s *Store) TrimAudit(ctx context.Context, v storage.AuditHead) error {
	return s.write(ctx, "trim audit", plain, func(t *tx) error {
		values, err := auditHeads.values(&v)
		if err != nil {
			return err
		}
		if err := require(t, "audit writer", "SELECT 1 FROM audit_heads WHERE writer = $1", v.Writer); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE audit_heads SET hash = $3, seal = $4, first_sequence = $5, first_previous_hash = $6
			WHERE writer = $1 AND sequence = $2 AND first_sequence <= $5`, values...)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: the writer's chain went on, or is trimmed further", storage.ErrConflict)
		}
		_, err = t.exec("DELETE FROM audit_records WHERE writer = $1 AND sequence < $2", v.Writer, v.First)
		return err
	})
}

// conditions are joined by AND.
type conditions struct {
	parts []string
	args  []any
}

// add takes a condition with a ? for each argument.
func (c *conditions) add(condition string, args ...any) {
	for _, arg := range args {
		c.args = append(c.args, arg)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.parts = append(c.parts, condition)
}

// addText leaves out what is empty.
func (c *conditions) addText(condition, value string) {
	if value != "" {
		c.add(condition, value)
	}
}

func (c *conditions) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(c.parts, " AND ")
}
