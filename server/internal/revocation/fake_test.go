package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

// world is a small storage with a directory that is always current and a
// trail. Several desks may share it, as replicas do.
type world struct {
	revocation.Store // nil: what a test does not need is not called

	mu        sync.Mutex
	rows      map[string]storage.Revocation
	records   []storage.AuditRecord
	observers []func([]storage.Change)
	// trouble fails the calls that it names.
	trouble map[string]error
}

func newWorld() *world {
	return &world{rows: map[string]storage.Revocation{}, trouble: map[string]error{}}
}

func (w *world) fails(call string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble[call]
}

func (w *world) fail(call string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble[call] = err
}

// current is the world as revocation.Directory.
type current struct{ *world }

func (d current) Sync(ctx context.Context) error {
	return errors.Join(ctx.Err(), d.fails("Sync"))
}
func (current) Tenant(id string) (storage.Tenant, bool) {
	return storage.Tenant{Meta: storage.Meta{ID: id}, Name: "name-of-" + id}, true
}
func (current) User(string) (storage.User, bool)         { return storage.User{}, false }
func (current) Agent(string) (storage.Agent, bool)       { return storage.Agent{}, false }
func (current) Grant(string) (storage.Grant, bool)       { return storage.Grant{}, false }
func (current) Location(string) (storage.Location, bool) { return storage.Location{}, false }
func (current) GrantsOf(string) []storage.Grant          { return nil }
func (current) GrantsFor(string, string) []storage.Grant { return nil }
func (d current) Revocations() (live []storage.Revocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(d.rows)) {
		if r := d.rows[id]; r.State != storage.RevocationExpired {
			live = append(live, r)
		}
	}
	return live
}

func (w *world) GetRevocation(_ context.Context, id string) (storage.Revocation, error) {
	if err := w.fails("GetRevocation"); err != nil {
		return storage.Revocation{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.rows[id]
	if !ok {
		return r, storage.ErrNotFound
	}
	return r, nil
}

func (w *world) UpdateRevocation(_ context.Context, r storage.Revocation) (storage.Revocation, error) {
	if err := w.fails("UpdateRevocation"); err != nil {
		return r, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rows[r.ID].Revision != r.Revision {
		return r, storage.ErrConflict
	}
	return w.put(r), nil
}

// put stores with the lock held, and tells the observers afterwards.
func (w *world) put(r storage.Revocation) storage.Revocation {
	r.Revision++
	w.rows[r.ID] = r
	observers := slices.Clone(w.observers)
	go func() {
		for _, tell := range observers {
			tell([]storage.Change{{Kind: storage.KindRevocation, ID: r.ID}})
		}
	}()
	return r
}

func (w *world) add(rows ...storage.Revocation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range rows {
		w.put(r)
	}
}

func (w *world) state(id string) storage.RevocationState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows[id].State
}

func (w *world) problem(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows[id].Problem
}

func (w *world) Append(_ context.Context, r storage.AuditRecord, _ int64) (storage.AuditRecord, error) {
	if err := w.fails("Append"); err != nil {
		return r, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
	return r, nil
}

// events lists the records as "event id".
func (w *world) events() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		list = append(list, r.Event+" "+r.Detail["revocation_id"])
	}
	return list
}

// fakeIAM keeps the inline policies of one user.
type fakeIAM struct {
	mu       sync.Mutex
	document string
	others   int
	limit    int
	// shown is what reading gives until a write is visible.
	shown  string
	delay  time.Duration // until a write is visible
	since  time.Time
	fails  map[string]error
	reads  int
	writes []string
	// before is called before each write, without the lock.
	before func(document string)
}

func newIAM() *fakeIAM { return &fakeIAM{limit: revocation.UserLimit, fails: map[string]error{}} }

func (f *fakeIAM) Inline(context.Context) (revocation.Inline, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if err := f.fails["Inline"]; err != nil {
		return revocation.Inline{}, err
	}
	document := f.document
	if time.Since(f.since) < f.delay {
		document = f.shown
	}
	return revocation.Inline{Subject: "user stoker", Document: document, Others: f.others, Limit: f.limit}, nil
}

func (f *fakeIAM) write(call, document string) error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		before(document)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes = append(f.writes, document)
	if err := f.fails[call]; err != nil {
		return err
	}
	if len(document)+f.others > f.limit {
		return fmt.Errorf("LimitExceeded: %d", len(document))
	}
	f.shown, f.document, f.since = f.document, document, time.Now()
	return nil
}

func (f *fakeIAM) Put(_ context.Context, document string) error { return f.write("Put", document) }
func (f *fakeIAM) Delete(context.Context) error                 { return f.write("Delete", "") }

func (f *fakeIAM) fail(call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[call] = err
}

func (f *fakeIAM) standing() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.document
}

func (f *fakeIAM) counts() (reads, writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads, len(f.writes)
}

func accounts(mode revocation.Mode, iam revocation.IAM) map[string]revocation.Account {
	return map[string]revocation.Account{"main": {Mode: mode, MaxLifetime: time.Hour, Limit: revocation.UserLimit, IAM: iam}}
}

// replica runs a desk in the world until the returned function is called.
func replica(t *testing.T, w *world, a map[string]revocation.Account, log *slog.Logger) (stop func()) {
	t.Helper()
	if log == nil {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	desk, err := revocation.New(revocation.Config{Directory: current{w}, Store: w, Trail: w, Accounts: a, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.observers = append(w.observers, desk.Changed)
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- desk.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
