package audit

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// A chain may be right in itself, seal and all, and still not be the one that
// another writer noted: a machine was put back to a snapshot, memory included,
// and wrote on.
func TestVerifyComparesWithCheckpoints(t *testing.T) {
	for name, c := range map[string]struct {
		noted func(chain []storage.AuditRecord) link
		trim  int64 // where the chain begins
		want  FaultKind
	}{
		"the same":                {func(r []storage.AuditRecord) link { return link{"w1", 2, r[1].Hash} }, 1, ""},
		"another":                 {func(r []storage.AuditRecord) link { return link{"w1", 2, r[2].Hash} }, 1, FaultRolledBack},
		"more":                    {func(r []storage.AuditRecord) link { return link{"w1", 4, r[2].Hash} }, 1, FaultRolledBack},
		"the same, just trimmed":  {func(r []storage.AuditRecord) link { return link{"w1", 2, r[1].Hash} }, 3, ""},
		"another, just trimmed":   {func(r []storage.AuditRecord) link { return link{"w1", 2, r[0].Hash} }, 3, FaultRolledBack},
		"trimmed beyond":          {func(r []storage.AuditRecord) link { return link{"w1", 1, "unknown now"} }, 3, ""},
		"a chain that is nowhere": {func([]storage.AuditRecord) link { return link{"w0", 7, "x"} }, 1, FaultChainMissing},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "stoker.db"), slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			}()
			key := secret.New(strings.Repeat("k", KeySize))
			seals, err := newSealer(key, nil)
			if err != nil {
				t.Fatal(err)
			}
			write := func(writer string, records ...storage.AuditRecord) storage.AuditBatch {
				one := chain{head: storage.AuditHead{Writer: writer, First: 1}}
				batch := one.draft(seals, 0, records, nil, time.Now()).batch
				if err := store.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) { return batch, nil }); err != nil {
					t.Fatal(err)
				}
				return batch
			}
			issue := storage.AuditRecord{Event: string(CredentialIssued)}
			first := write("w1", issue, issue, issue)
			noted := c.noted(first.Records)
			note := checkpointOf("w2", []storage.AuditHead{seals.seal(storage.AuditHead{Writer: noted.writer, Sequence: noted.sequence, Hash: noted.hash})}, seals)
			write("w2", note)
			if c.trim > 1 {
				head := first.Head
				head.First, head.FirstPrevHash = c.trim, first.Records[c.trim-2].Hash
				if err := store.TrimAudit(t.Context(), seals.seal(head)); err != nil {
					t.Fatal(err)
				}
			}
			report, err := Verify(t.Context(), store, key)
			if err != nil {
				t.Fatal(err)
			}
			var faults []Fault
			for _, chain := range report.Chains {
				faults = append(faults, chain.Faults...)
			}
			if c.want == "" && len(faults) > 0 {
				t.Errorf("faults %v", faults)
			}
			if c.want != "" && (len(faults) != 1 || faults[0].Kind != c.want || faults[0].Sequence != noted.sequence) {
				t.Errorf("faults %v, want %s at %d", faults, c.want, noted.sequence)
			}
		})
	}
}

// Heads that nobody sealed are not noted, nor is the writer's own.
func TestCheckpointNotesSealedHeads(t *testing.T) {
	seals, err := newSealer(secret.New(strings.Repeat("k", KeySize)), nil)
	if err != nil {
		t.Fatal(err)
	}
	heads := []storage.AuditHead{
		{Writer: "forged", Sequence: 1, Hash: "h"},
		seals.seal(storage.AuditHead{Writer: "own", Sequence: 1, Hash: "h"}),
	}
	for i := range 20 {
		heads = append(heads, seals.seal(storage.AuditHead{Writer: string(rune('a' + i)), Sequence: 2, Hash: "h"}))
	}
	record := checkpointOf("own", heads, seals)
	if len(record.Detail) != maxLinks || len(links(record)) != maxLinks || record.Detail["head.t"] != "2 h" || record.Detail["head.a"] != "" {
		t.Errorf("noted %v", record.Detail)
	}
	for _, detail := range []map[string]string{{"head.x": "1"}, {"head.x": "one h"}, {"x": "1 h"}, nil} {
		if got := links(storage.AuditRecord{Event: string(AuditCheckpoint), Detail: detail}); len(got) > 0 {
			t.Errorf("%v gave %v", detail, got)
		}
	}
	if got := links(storage.AuditRecord{Event: string(AdminCreated), Detail: map[string]string{"head.x": "1 h"}}); len(got) > 0 {
		t.Errorf("a record of another event gave %v", got)
	}
}
