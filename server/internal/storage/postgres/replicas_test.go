package postgres

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
)

// widen does to every table what a migration of a later version may do: it adds
// a column, and notes a version that this one does not know.
const widen = `DO $$ DECLARE t text; BEGIN
	FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'
	LOOP EXECUTE format('ALTER TABLE %I ADD COLUMN of_tomorrow text NOT NULL DEFAULT %L', t, 'x'); END LOOP;
	CREATE TABLE tomorrow (id text PRIMARY KEY);
	INSERT INTO goose_db_version (version_id, is_applied) VALUES (100, true);
END $$`

// A newer replica migrates the tables while an older one works with them: the
// older one notices nothing, and neither does one of its version that starts
// after that.
func testMigratedUnderLoad(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	old := mustOpen(t, dsn, 0)
	defer mustClose(t, old)
	working, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	calls := make(chan struct{}, 1000)
	work := func(name string, call func(n int64) error) {
		workers.Go(func() {
			for n := int64(1); working.Err() == nil; n++ {
				if err := call(n); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				select {
				case calls <- struct{}{}:
				default:
				}
			}
		})
	}
	ctx := t.Context()
	work("append", func(n int64) error { return tryAppend(ctx, old, record("w", n)) })
	work("write", func(n int64) error { return endSession(ctx, old, fmt.Sprint(n)) })
	work("load", func(int64) error { _, err := old.Load(ctx); return err })
	work("read", func(int64) error { _, err := old.AuditHeads(ctx); return err })
	some := func() {
		for range 100 {
			select {
			case <-calls:
			case <-time.After(20 * time.Second):
				t.Fatal("the old replica hangs")
			}
		}
	}
	some()
	run(t, dsn, widen)
	for len(calls) > 0 {
		<-calls
	}
	some()
	stop()
	workers.Wait()

	var logged bytes.Buffer
	late, err := Open(ctx, dsn, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, late)
	if err := endSession(ctx, late, "late"); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), "tables=100") {
		t.Errorf("logged: %s", logged.String())
	}
}

// A server that answers late is worked with as any other: nothing is given up
// before its time, and what another replica changes is heard of.
func testSlowNetwork(t *testing.T, server *partner.Server) {
	const by = 100 * time.Millisecond
	dsn := server.Database(t)
	link := server.Link(t)
	slow, other := mustOpen(t, link.DSN(t, dsn), 0), mustOpen(t, dsn, 0)
	defer mustClose(t, slow)
	defer mustClose(t, other)
	ctx := t.Context()
	watch, err := slow.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	awaitValue(t, watch) // connected
	link.Slow(by)
	defer link.Restore()
	for name, call := range map[string]func() error{
		"ping":   func() error { return slow.Ping(ctx) },
		"load":   func() error { _, err := slow.Load(ctx); return err },
		"write":  func() error { return endSession(ctx, slow, "slow") },
		"append": func() error { return tryAppend(ctx, slow, record("w", 1)) },
	} {
		begin := time.Now()
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took < by {
			t.Errorf("%s took %v: nothing was slow", name, took)
		}
	}
	for len(watch) > 0 {
		<-watch
	}
	if err := endSession(ctx, other, "quick"); err != nil {
		t.Fatal(err)
	}
	awaitValue(t, watch)
	if head, err := slow.Head(ctx); err != nil || head < 2 {
		t.Errorf("head is %d, %v", head, err)
	}
}
