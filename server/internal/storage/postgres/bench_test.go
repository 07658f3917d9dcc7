package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/server/internal/storage"
)

// BenchmarkAppendAudit measures durable appends on a server on this machine:
// alone, and as the group commit of 64 waiting writers.
func BenchmarkAppendAudit(b *testing.B) {
	dsn := partner.Start(b).Database(b)
	s, err := Open(b.Context(), dsn, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprintf("records=%d", size), func(b *testing.B) {
			writer, next := fmt.Sprint(time.Now()), int64(1)
			for b.Loop() {
				batch := storage.AuditBatch{Head: storage.AuditHead{Writer: writer, Sequence: next + int64(size) - 1, First: 1}}
				for range size {
					batch.Records = append(batch.Records, storage.AuditRecord{
						Writer: writer, Sequence: next, Time: time.Now(), Event: storage.EventCredentialIssued,
						Actor: "spiffe://example.com/tenant/acme/agent/laptop", Tenant: "acme", Login: "backup", Agent: "laptop",
						CredentialID: fmt.Sprintf("c%x", next), AccessKeyID: fmt.Sprintf("%X", uint64(next)*0x9e3779b97f4a7c15),
						SessionName: fmt.Sprintf("stk-%x", uint64(next)*0xbf58476d1ce4e5b9), Expires: time.Now(),
						PrevHash: fmt.Sprintf("%064x", next-1), Hash: fmt.Sprintf("%064x", next),
					})
					next++
				}
				err := s.AppendAudit(context.Background(), func(int64) (storage.AuditBatch, error) { return batch, nil })
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
