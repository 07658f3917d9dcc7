package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// issues makes a batch of n records as the issue of credentials leaves them.
func issues(writer string, from int64, n int) storage.AuditBatch {
	var b storage.AuditBatch
	for i := from; i < from+int64(n); i++ {
		b.Records = append(b.Records, storage.AuditRecord{
			Writer: writer, Sequence: i, Time: time.Now(), Event: storage.EventCredentialIssued,
			Actor:             "spiffe://example.com/tenant/acme/agent/laptop",
			CertificateSerial: "4ac0ffee4ac0ffee4ac0ffee4ac0ffee", Peer: "192.0.2.17:40712",
			CertificateThumbprint: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
			RequestID:             "01981d7c-0000-7000-8000-000000000001",
			TenantID:              "01981d7c-0000-7000-8000-000000000002", Tenant: "acme",
			UserID: "01981d7c-0000-7000-8000-000000000003", Login: "backup",
			AgentID: "01981d7c-0000-7000-8000-000000000004", Agent: "laptop",
			GrantID: "01981d7c-0000-7000-8000-000000000005", Grant: "nightly",
			SessionID: "01981d7c-0000-7000-8000-000000000006", Account: "main",
			CredentialID: fmt.Sprintf("01981d7c-0000-7000-8000-%012x", i),
			AccessKeyID:  fmt.Sprintf("ASIA%016X", uint64(i)*0x9e3779b97f4a7c15),
			SessionName:  fmt.Sprintf("stk-%016x", uint64(i)*0xbf58476d1ce4e5b9),
			PolicyHash:   "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
			Expires:      time.Now().Add(time.Hour),
			PrevHash:     fmt.Sprintf("%064x", i-1), Hash: fmt.Sprintf("%064x", i),
		})
	}
	b.Head = storage.AuditHead{Writer: writer, Sequence: from + int64(n) - 1, First: 1, Hash: fmt.Sprintf("%064x", from+int64(n)-1)}
	return b
}

// BenchmarkAppendAudit measures durable appends: alone, and as the group
// commit of 64 waiting writers.
func BenchmarkAppendAudit(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprintf("records=%d", size), func(b *testing.B) {
			s, err := Open(b.Context(), filepath.Join(b.TempDir(), "stoker.db"), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			next := int64(1)
			for b.Loop() {
				batch := issues("01981d7c-0000-7000-8000-00000000aaaa", next, size)
				next += int64(size)
				err := s.AppendAudit(context.Background(), func(int64) (storage.AuditBatch, error) { return batch, nil })
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkFindIssue measures the look-up that a resumed credential costs, in
// a trail of 50,000 records.
func BenchmarkFindIssue(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "stoker.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const trail = 50_000
	for next := int64(1); next <= trail; next += 500 {
		batch := issues("w", next, 500)
		if err := s.AppendAudit(b.Context(), func(int64) (storage.AuditBatch, error) { return batch, nil }); err != nil {
			b.Fatal(err)
		}
	}
	n := int64(0)
	for b.Loop() {
		n = n*7919%trail + 1
		if _, err := s.FindIssue(b.Context(), fmt.Sprintf("01981d7c-0000-7000-8000-%012x", n)); err != nil {
			b.Fatal(err)
		}
	}
}
