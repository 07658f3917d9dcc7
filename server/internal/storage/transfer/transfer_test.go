package transfer_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/postgres"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
	"github.com/stokerd/stoker/server/internal/storage/storagetest"
	"github.com/stokerd/stoker/server/internal/storage/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func keep(t *testing.T, s storage.Store, err error) storage.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func file(t *testing.T) storage.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "stoker.db"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	return keep(t, s, err)
}

func database(t *testing.T, server *partner.Server) storage.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), server.Database(t), slog.New(slog.NewTextHandler(t.Output(), nil)))
	return keep(t, s, err)
}

// What went from a file to a server, to another one and back to a file is
// still the same.
func TestThereAndBack(t *testing.T) {
	server := partner.Start(t, "fsync=off")
	from := file(t)
	storagetest.Fill(t, from)
	want := storagetest.Read(t, from)
	for _, to := range []storage.Store{database(t, server), database(t, server), file(t)} {
		copied, err := transfer.Copy(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, storagetest.Read(t, to)); diff != "" {
			t.Errorf("contents (-want +got):\n%s", diff)
		}
		counts := map[string]int64{}
		for _, c := range copied {
			counts[c.Table] = c.Rows
		}
		if counts["tenants"] != 2 || counts["audit_records"] != 193 || counts["join_tokens"] != 2 || counts["tombstones"] != 1 || len(counts) != 14 {
			t.Errorf("copied: %v", copied)
		}
		from = to
	}
	// Life goes on: the feed and the chains are continued.
	before := want.Snapshot.Sequence
	if _, err := from.CreateTenant(t.Context(), storage.Tenant{Meta: storage.Meta{ID: "next"}, Name: "next"}); err != nil {
		t.Fatal(err)
	}
	if head, err := from.Head(t.Context()); err != nil || head != before+1 {
		t.Errorf("head is %d (%v), want %d", head, err, before+1)
	}
}

func TestDestinationMustBeEmpty(t *testing.T) {
	from, to := file(t), file(t)
	storagetest.Fill(t, from)
	storagetest.Fill(t, to)
	want := storagetest.Read(t, to)
	if _, err := transfer.Copy(t.Context(), from, to); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(want, storagetest.Read(t, to)); diff != "" {
		t.Errorf("the destination was changed:\n%s", diff)
	}

	// The trail alone, which does not move the feed, counts as well.
	to = file(t)
	err := to.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) {
		record := want.Records[0]
		record.Writer, record.Sequence = "x", 1
		return storage.AuditBatch{Records: []storage.AuditRecord{record}, Head: storage.AuditHead{Writer: "x", Sequence: 1, First: 1}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(t.Context(), from, to); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("error is %v", err)
	}
}

func TestNothingIsCopiedByHalves(t *testing.T) {
	from, to := file(t), file(t)
	storagetest.Fill(t, from)
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(t.Context(), from, to); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	if snapshot, err := to.Load(t.Context()); err != nil || len(snapshot.Tenants) != 0 {
		t.Errorf("copied: %v, %v", snapshot, err)
	}
}

func TestForeignStores(t *testing.T) {
	type foreign struct{ storage.Store }
	for _, pair := range [][2]storage.Store{{foreign{}, file(t)}, {file(t), foreign{}}} {
		if _, err := transfer.Copy(t.Context(), pair[0], pair[1]); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("error is %v", err)
		}
	}
}
