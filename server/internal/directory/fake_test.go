package directory_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
)

var _ directory.Store = (*fake)(nil)

// fake is a store in memory: it keeps entities and a feed, and can be made to
// fail, hang, trim, and lose notifications.
type fake struct {
	mu       sync.Mutex
	entities map[storage.Kind]map[string]any // by value
	feed     []storage.Change
	trimmed  int64 // entries up to here are gone
	watchers map[chan struct{}]bool

	// away fails every call, noLoad only Load, hang lets calls wait for their
	// context's end, deaf loses notifications, mute refuses Watch.
	away       error
	noLoad     error
	hang       bool
	deaf, mute bool
	heads      int // calls of Head
	loads      int
	fetching   int // getters in progress, and the most ever
	mostFetch  int
	fetched    func() // runs inside each getter, unlocked
}

func newFake() *fake {
	return &fake{entities: map[storage.Kind]map[string]any{}, watchers: map[chan struct{}]bool{}}
}

// set changes the fake's faults.
func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// write commits entities in one transaction; a nil entity is a deletion.
type write struct {
	kind   storage.Kind
	id     string
	entity any
}

func put(entity any) write {
	switch e := entity.(type) {
	case storage.Tenant:
		return write{storage.KindTenant, e.ID, e}
	case storage.User:
		return write{storage.KindUser, e.ID, e}
	case storage.Agent:
		return write{storage.KindAgent, e.ID, e}
	case storage.Location:
		return write{storage.KindLocation, e.ID, e}
	case storage.Grant:
		return write{storage.KindGrant, e.ID, e}
	case storage.Certificate:
		return write{storage.KindCertificate, e.ID, e}
	case storage.EndedSession:
		return write{storage.KindSession, e.ID, e}
	case storage.Revocation:
		return write{storage.KindRevocation, e.ID, e}
	default:
		panic(fmt.Sprintf("no entity: %T", entity))
	}
}

func gone(kind storage.Kind, id string) write { return write{kind, id, nil} }

func (f *fake) commit(writes ...write) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range writes {
		if f.entities[w.kind] == nil {
			f.entities[w.kind] = map[string]any{}
		}
		if w.entity == nil {
			delete(f.entities[w.kind], w.id)
		} else {
			f.entities[w.kind][w.id] = w.entity
		}
		f.feed = append(f.feed, storage.Change{Sequence: f.head() + 1, Kind: w.kind, ID: w.id})
	}
	f.notify()
}

func (f *fake) notify() {
	for w := range f.watchers {
		if f.deaf {
			continue
		}
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (f *fake) head() int64 { return f.trimmed + int64(len(f.feed)) }

// trim forgets all entries of the feed.
func (f *fake) trim() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trimmed, f.feed = f.head(), nil
}

// hangUp ends all watches, as a lost connection does.
func (f *fake) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		close(w)
	}
	clear(f.watchers)
}

// serve stands at the beginning of each call.
func (f *fake) serve(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	hang, away := f.hang, f.away
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return away
}

func (f *fake) Head(ctx context.Context) (int64, error) {
	f.set(func(f *fake) { f.heads++ })
	if err := f.serve(ctx); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head(), nil
}

// asked counts the calls of Head.
func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads
}

func (f *fake) Changes(ctx context.Context, after int64, limit int) ([]storage.Change, error) {
	if err := f.serve(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if after < f.trimmed || after > f.head() {
		return nil, storage.ErrNotFound
	}
	rest := f.feed[after-f.trimmed:]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

func (f *fake) Watch(ctx context.Context) (<-chan struct{}, error) {
	if err := f.serve(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute {
		return nil, storage.ErrUnavailable
	}
	w := make(chan struct{}, 1)
	f.watchers[w] = true
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.watchers[w] {
			delete(f.watchers, w)
			close(w)
		}
	})
	return w, nil
}

func (f *fake) Load(ctx context.Context) (storage.Snapshot, error) {
	f.set(func(f *fake) { f.loads++ })
	if err := f.serve(ctx); err != nil {
		return storage.Snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noLoad != nil {
		return storage.Snapshot{}, f.noLoad
	}
	s := storage.Snapshot{
		Sequence:      f.head(),
		Tenants:       all[storage.Tenant](f, storage.KindTenant),
		Users:         all[storage.User](f, storage.KindUser),
		Agents:        all[storage.Agent](f, storage.KindAgent),
		Locations:     all[storage.Location](f, storage.KindLocation),
		Grants:        all[storage.Grant](f, storage.KindGrant),
		EndedSessions: all[storage.EndedSession](f, storage.KindSession),
	}
	for i := range s.Users {
		s.Users[i].PasswordHash = ""
	}
	for _, c := range all[storage.Certificate](f, storage.KindCertificate) {
		if !c.RevokedAt.IsZero() {
			s.RevokedCertificates = append(s.RevokedCertificates, c)
		}
	}
	for _, r := range all[storage.Revocation](f, storage.KindRevocation) {
		if r.State != storage.RevocationExpired {
			s.Revocations = append(s.Revocations, r)
		}
	}
	return s, nil
}

func all[T any](f *fake, kind storage.Kind) []T {
	var list []T
	for _, e := range f.entities[kind] {
		list = append(list, e.(T))
	}
	return list
}

func get[T any](ctx context.Context, f *fake, kind storage.Kind, id string) (T, error) {
	var none T
	if err := f.serve(ctx); err != nil {
		return none, err
	}
	f.mu.Lock()
	f.fetching++
	f.mostFetch = max(f.mostFetch, f.fetching)
	during := f.fetched
	f.mu.Unlock()
	if during != nil {
		during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetching--
	e, ok := f.entities[kind][id]
	if !ok {
		return none, storage.ErrNotFound
	}
	return e.(T), nil
}

func (f *fake) GetTenant(ctx context.Context, id string) (storage.Tenant, error) {
	return get[storage.Tenant](ctx, f, storage.KindTenant, id)
}

func (f *fake) GetUser(ctx context.Context, id string) (storage.User, error) {
	return get[storage.User](ctx, f, storage.KindUser, id)
}

func (f *fake) GetAgent(ctx context.Context, id string) (storage.Agent, error) {
	return get[storage.Agent](ctx, f, storage.KindAgent, id)
}

func (f *fake) GetLocation(ctx context.Context, id string) (storage.Location, error) {
	return get[storage.Location](ctx, f, storage.KindLocation, id)
}

func (f *fake) GetGrant(ctx context.Context, id string) (storage.Grant, error) {
	return get[storage.Grant](ctx, f, storage.KindGrant, id)
}

func (f *fake) GetCertificate(ctx context.Context, id string) (storage.Certificate, error) {
	return get[storage.Certificate](ctx, f, storage.KindCertificate, id)
}

func (f *fake) GetEndedSession(ctx context.Context, id string) (storage.EndedSession, error) {
	return get[storage.EndedSession](ctx, f, storage.KindSession, id)
}

func (f *fake) GetRevocation(ctx context.Context, id string) (storage.Revocation, error) {
	return get[storage.Revocation](ctx, f, storage.KindRevocation, id)
}
