package audit_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

var (
	key      = secret.New(strings.Repeat("k", audit.KeySize))
	otherKey = secret.New(strings.Repeat("o", audit.KeySize))
)

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// open opens a trail and closes it with the test.
func open(t testing.TB, store storage.Audit, opts audit.Options) *audit.Trail {
	t.Helper()
	if opts.Log == nil {
		opts.Log = logger(t)
	}
	trail, err := audit.Open(t.Context(), store, key, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTrail(t, trail) })
	return trail
}

// closeTrail closes a trail, which may have been closed before.
func closeTrail(t testing.TB, trail *audit.Trail) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := trail.Close(ctx); err != nil {
		t.Logf("close: %v", err)
	}
}

// issued is a record as the lease manager makes it.
func issued(id string) storage.AuditRecord {
	return storage.AuditRecord{
		Event: string(audit.CredentialIssued), Actor: "spiffe://example/tenant/acme/agent/box",
		TenantID: "t1", Tenant: "acme", Login: "ann", CredentialID: id, AccessKeyID: "ASIA" + id,
		Expires: time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("here", 3600)),
		Detail:  map[string]string{"a": "1", "b": "2"},
	}
}

func add(t testing.TB, trail *audit.Trail, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := trail.Append(t.Context(), issued(id), audit.NoFence); err != nil {
			t.Fatalf("Append %s: %v", id, err)
		}
	}
}

func verify(t testing.TB, store storage.Audit) audit.Report {
	t.Helper()
	report, err := audit.Verify(t.Context(), store, key)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return report
}

func intact(t testing.TB, store storage.Audit) {
	t.Helper()
	for _, c := range verify(t, store).Chains {
		if len(c.Faults) > 0 {
			t.Errorf("chain %s: %v", c.Writer, c.Faults)
		}
	}
}
