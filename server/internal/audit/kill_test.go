package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/crash"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// childPath is set in the environment of a test binary that is to issue under
// load, in the database there, until it is killed.
const childPath = "STOKER_TEST_AUDIT_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Fprintln(os.Stderr, issueUntilKilled(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// issueUntilKilled appends from many goroutines, with a sink, and prints each
// credential's id once its record is durable: as a broker releases it.
func issueUntilKilled(path string) error {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	sink, err := audit.OpenFile(path + ".jsonl")
	if err != nil {
		return err
	}
	trail, err := audit.Open(ctx, store, key, audit.Options{Sink: sink})
	if err != nil {
		return err
	}
	failed := make(chan error)
	var printing sync.Mutex
	for worker := range 16 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%s-%d-%d", trail.Writer(), worker, i)
				if _, err := trail.Append(ctx, issued(id), audit.NoFence); err != nil {
					failed <- err
					return
				}
				printing.Lock()
				fmt.Println(id)
				printing.Unlock()
			}
		}()
	}
	return <-failed
}

// A broker that is killed under load, again and again, never leaves a released
// credential without its record, nor a chain that does not verify; and the
// second sink is made whole by the next run.
func TestKilledUnderLoad(t *testing.T) {
	path := database(t)
	var released []string
	for round := range 3 {
		// It is killed at another place each time.
		released = append(released, crash.After(t, 20+71*round, childPath+"="+path)...)
	}
	store := openStore(t, path)
	sink := openFile(t, path+".jsonl")
	closeTrail(t, open(t, store, audit.Options{Sink: sink}))
	intact(t, store)
	records := everyRecord(t, store)
	stored := map[string]bool{}
	for _, r := range records {
		stored[r.CredentialID] = true
	}
	for _, id := range released {
		if !stored[id] {
			t.Errorf("credential %s was released without a record", id)
		}
	}
	written := map[string]bool{}
	for line := range strings.Lines(read(t, path+".jsonl")) {
		written[line] = true
	}
	for _, r := range records {
		if !written[string(audit.AppendLine(nil, r))] {
			t.Errorf("the sink lacks record %d of %s", r.Sequence, r.Writer)
		}
	}
}

// everyRecord reads the whole trail.
func everyRecord(t *testing.T, store storage.Audit) (all []storage.AuditRecord) {
	t.Helper()
	heads, err := store.AuditHeads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range heads {
		records, err := store.AuditChain(t.Context(), head.Writer, 1, 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
	}
	return all
}
