package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/crash"
	"github.com/stokerd/stoker/server/internal/storage"
)

// childPath is set in the environment of a test binary that is to write to
// the database there until it is killed.
const childPath = "STOKER_TEST_SQLITE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// writeUntilKilled appends records and ends sessions, and says on standard
// output how far it has come each time the store has acknowledged both.
func writeUntilKilled(path string) error {
	ctx := context.Background()
	s, err := Open(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	next := int64(1)
	heads, err := s.AuditHeads(ctx)
	if err != nil {
		return err
	}
	if len(heads) > 0 {
		next = heads[0].Sequence + 1
	}
	for ; ; next += 3 {
		batch := issues("w", next, 3)
		err := s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) { return batch, nil })
		if err != nil {
			return err
		}
		err = s.EndSession(ctx, storage.EndedSession{ID: fmt.Sprint(next), Expires: time.Now()})
		if err != nil {
			return err
		}
		fmt.Println(next)
	}
}

// What was acknowledged to a process that was then killed is there.
func TestKilledInTheMiddle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	var acknowledged []int64
	for round := range 6 {
		// It is killed at another place each time.
		for _, line := range crash.After(t, 5+13*round, childPath+"="+path) {
			sequence, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			acknowledged = append(acknowledged, sequence)
		}
		checkAcknowledged(t, path, acknowledged)
	}
}

// checkAcknowledged checks the trail up to the last step, and the session of
// each step. A step that was cut in two left its records without a session.
func checkAcknowledged(t *testing.T, path string, steps []int64) {
	t.Helper()
	s := mustOpen(t, path)
	defer mustClose(t, s)
	records, err := s.AuditChain(t.Context(), "w", 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if last := int(steps[len(steps)-1]) + 2; len(records) < last {
		t.Errorf("%d records, %d were acknowledged", len(records), last)
	}
	for i, r := range records {
		if r.Sequence != int64(i+1) {
			t.Fatalf("record %d stands at %d", r.Sequence, i+1)
		}
	}
	heads, err := s.AuditHeads(t.Context())
	if err != nil || len(heads) != 1 || heads[0].Sequence != int64(len(records)) {
		t.Errorf("heads %v (%v) do not fit %d records", heads, err, len(records))
	}
	changes, err := s.Changes(t.Context(), 0, 1_000_000)
	if err != nil || len(changes) < len(steps) {
		t.Fatalf("%d changes (%v), %d were acknowledged", len(changes), err, len(steps))
	}
	for i, c := range changes {
		if c.Sequence != int64(i+1) {
			t.Fatalf("change %d stands at %d", c.Sequence, i+1)
		}
	}
	for _, step := range steps {
		if _, err := s.GetEndedSession(t.Context(), fmt.Sprint(step)); err != nil {
			t.Errorf("session %d: %v", step, err)
		}
	}
}
