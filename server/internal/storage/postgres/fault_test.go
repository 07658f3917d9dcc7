package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/server/internal/storage"
)

// record is the n-th batch of a writer, of one record.
func record(writer string, n int64) storage.AuditBatch {
	return storage.AuditBatch{
		Records: []storage.AuditRecord{{Writer: writer, Sequence: n, Time: time.Now(), Event: "test"}},
		Head:    storage.AuditHead{Writer: writer, Sequence: n, First: 1},
	}
}

func tryAppend(ctx context.Context, s *Store, b storage.AuditBatch) error {
	return s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) { return b, nil })
}

func endSession(ctx context.Context, s *Store, id string) error {
	return s.EndSession(ctx, storage.EndedSession{ID: id, Expires: time.Now()})
}

// awaitValue waits for the watch to tell something.
func awaitValue(t *testing.T, watch <-chan struct{}) {
	t.Helper()
	select {
	case _, open := <-watch:
		if !open {
			t.Fatal("the watch has ended")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the watch tells nothing")
	}
}

// A server that is killed under load loses nothing that was acknowledged. What
// failed without a doubt did not happen. When it is back, so is the store.
func testServerKilledUnderLoad(t *testing.T, server *partner.Server) {
	s := mustOpen(t, server.Database(t), 0)
	defer mustClose(t, s)
	ctx := t.Context()
	for round := range 3 {
		var begun sync.WaitGroup
		begun.Add(4)
		outcomes := make(chan outcome)
		for w := range 4 {
			go func() { outcomes <- appendUntilFailure(ctx, s, fmt.Sprintf("writer%d-%d", round, w), &begun) }()
		}
		begun.Wait()
		server.Kill(t)
		var cut []outcome
		for range 4 {
			select {
			case o := <-outcomes:
				cut = append(cut, o)
			case <-time.After(20 * time.Second):
				t.Fatal("calls hang although the server is gone")
			}
		}
		if err := s.Ping(ctx); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrInDoubt) {
			t.Errorf("ping without a server: %v", err)
		}
		server.Restart(t)
		// The broken connections of the pools are nobody's trouble.
		for _, call := range []func(context.Context) error{
			s.Ping, func(ctx context.Context) error { _, err := s.Head(ctx); return err },
			func(ctx context.Context) error { return endSession(ctx, s, fmt.Sprint("round", round)) },
		} {
			if err := call(ctx); err != nil {
				t.Errorf("after the restart: %v", err)
			}
		}
		for _, o := range cut {
			o.check(t, s)
		}
	}
}

// outcome is how a writer's appends ended.
type outcome struct {
	writer       string
	acknowledged int64
	err          error // of the next one
}

// appendUntilFailure appends to a chain until the server is gone. It counts
// itself out of begun when it has got going.
func appendUntilFailure(ctx context.Context, s *Store, writer string, begun *sync.WaitGroup) outcome {
	o := outcome{writer: writer}
	for {
		if o.err = tryAppend(ctx, s, record(writer, o.acknowledged+1)); o.err != nil {
			break
		}
		if o.acknowledged++; o.acknowledged == 20 {
			begun.Done()
		}
	}
	if o.acknowledged < 20 {
		begun.Done()
	}
	return o
}

// check compares the outcome with what the server kept.
func (o outcome) check(t *testing.T, s *Store) {
	t.Helper()
	if !errors.Is(o.err, storage.ErrUnavailable) {
		t.Errorf("%s: append: %v", o.writer, o.err)
	}
	records, err := s.AuditChain(t.Context(), o.writer, 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	kept, most := int64(len(records)), o.acknowledged
	if errors.Is(o.err, storage.ErrInDoubt) {
		most++
	}
	if kept < o.acknowledged || kept > most {
		t.Errorf("%s: %d records are kept, %d were acknowledged; then: %v", o.writer, kept, o.acknowledged, o.err)
	}
}

// A change that another replica makes while this one is cut off is told once
// the connection is back.
func testWatchAfterALostConnection(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	link := server.Link(t)
	warned := make(chan string, 100)
	s, err := open(t.Context(), link.DSN(t, dsn), slog.New(slog.NewTextHandler(lines(warned), nil)), 0)
	if err != nil {
		t.Fatal(err)
	}
	other := mustOpen(t, dsn, 0)
	defer mustClose(t, s)
	defer mustClose(t, other)
	s.listener.pingEvery, s.listener.pingTimeout = 100*time.Millisecond, 200*time.Millisecond
	watch, err := s.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for i, disturb := range []func(){link.Cut, link.Hang, link.Cut} {
		awaitValue(t, watch) // connected
		disturb()
		if err := endSession(ctx, other, fmt.Sprint("missed", i)); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := s.Head(short); err == nil {
			t.Error("the store is not cut off")
		}
		cancel()
		for i == 1 && !strings.Contains(<-warned, "lost without a word") {
		}
		select {
		case <-watch: // from before the disturbance
		default:
		}
		link.Restore()
		awaitValue(t, watch)
		if head, err := s.Head(ctx); err != nil || head != int64(2*i+1) {
			t.Errorf("head is %d (%v), want %d", head, err, 2*i+1)
		}
		if err := endSession(ctx, other, fmt.Sprint("heard", i)); err != nil {
			t.Fatal(err)
		}
	}
}

// lines passes on each line that is logged, while somebody takes them.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

// Calls end with their contexts when the network loses everything, and so does
// Close.
func testHungNetwork(t *testing.T, server *partner.Server) {
	link := server.Link(t)
	s := mustOpen(t, link.DSN(t, server.Database(t)), 0)
	if _, err := s.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	link.Hang()
	for name, call := range map[string]func(context.Context) error{
		"ping":   s.Ping,
		"read":   func(ctx context.Context) error { _, err := s.Load(ctx); return err },
		"write":  func(ctx context.Context) error { return endSession(ctx, s, "id") },
		"append": func(ctx context.Context) error { return tryAppend(ctx, s, record("w", 1)) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		begin := time.Now()
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		cancel()
	}
	begin := time.Now()
	mustClose(t, s)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("close took %v", took)
	}
}

// A replica that freezes in the middle of an append, with the feed in its
// hands, stops the others for as long as the server has patience, and no
// longer. Its append fails.
func testFrozenReplicaLosesItsHold(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	link := server.Link(t)
	other := mustOpen(t, dsn, 0) // which makes the tables: that may take its time
	frozen := mustOpen(t, link.DSN(t, dsn)+"&idle_in_transaction_session_timeout=300", 0)
	defer mustClose(t, frozen)
	defer mustClose(t, other)
	err := tryBuild(t.Context(), frozen, func() {
		link.Hang()
		if err := endSession(t.Context(), other, "id"); err != nil {
			t.Errorf("the other replica's write: %v", err)
		}
		link.Restore()
	})
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrInDoubt) {
		t.Errorf("append: %v", err)
	}
	if heads, err := other.AuditHeads(t.Context()); err != nil || len(heads) != 0 {
		t.Errorf("heads: %v, %v", heads, err)
	}
}

// tryBuild appends a record after during has run in build. A repeated build
// fails.
func tryBuild(ctx context.Context, s *Store, during func()) error {
	return s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) {
		during()
		return record("w", 1), nil
	})
}
