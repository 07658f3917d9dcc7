package sqlstore_test

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The trail grows without bound, so its queries must not read all of it: each
// goes by the index meant for it.
func TestAuditQueriesUseTheirIndexes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	store, err := sqlite.Open(t.Context(), path, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()

	cursor := &storage.AuditCursor{Time: time.Now(), Writer: "w", Sequence: 7}
	for name, c := range map[string]struct {
		filter storage.AuditFilter
		after  *storage.AuditCursor
		index  string
	}{
		"all":           {storage.AuditFilter{}, nil, "SCAN audit_records USING INDEX audit_records_order"},
		"next page":     {storage.AuditFilter{}, cursor, "SEARCH audit_records USING INDEX audit_records_order ((recorded_at,writer,sequence)>(?,?,?))"},
		"time":          {storage.AuditFilter{After: time.Now()}, nil, "SEARCH audit_records USING INDEX audit_records_order (recorded_at>?)"},
		"credential":    {storage.AuditFilter{CredentialID: "c"}, cursor, "SEARCH audit_records USING INDEX audit_records_credential"},
		"access key":    {storage.AuditFilter{AccessKeyID: "k"}, nil, "SEARCH audit_records USING INDEX audit_records_access_key"},
		"tenant":        {storage.AuditFilter{Tenant: "t", After: time.Now()}, nil, "SEARCH audit_records USING INDEX audit_records_tenant (tenant_name=? AND recorded_at>?)"},
		"tenant's next": {storage.AuditFilter{Tenant: "t"}, cursor, "SEARCH audit_records USING INDEX audit_records_tenant (tenant_name=? AND (recorded_at,writer,sequence)>(?,?,?))"},
		"session name":  {storage.AuditFilter{SessionName: "s", Tenant: "t"}, cursor, "SEARCH audit_records USING INDEX audit_records_session"},
	} {
		query, args := sqlstore.AuditQuery(c.filter, c.after)
		if plan := explain(t, db, query, args); !strings.Contains(plan, c.index) {
			t.Errorf("%s: %s, want %s", name, plan, c.index)
		}
	}
	query, args := sqlstore.IssueQuery()
	if plan := explain(t, db, query, args); !strings.Contains(plan, "USING INDEX audit_records_credential") {
		t.Errorf("issue: %s", plan)
	}
}

func explain(t *testing.T, db *sql.DB, query string, args []any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "; ")
}
