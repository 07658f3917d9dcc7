package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var feedCases = map[string]func(*testing.T, Opener){
	"StartsAtZero":        one(testFeedStartsAtZero),
	"Changes":             one(testChanges),
	"Trimmed":             testTrimmed,
	"GaplessInOrder":      one(testGaplessInOrder),
	"HeadStandsForBuild":  one(testHeadStandsStillDuringBuild),
	"BuildSeesTheNewest":  one(testBuildSeesTheNewestHead),
	"Load":                one(testLoad),
	"LoadIsOneMoment":     one(testLoadIsOneMoment),
	"WatchTells":          one(testWatchTells),
	"WatchEndsWithItsCtx": one(testWatchEndsWithItsContext),
	"WatchEndsWithClose":  testWatchEndsWithClose,
}

func testFeedStartsAtZero(t *testing.T, s storage.Store) {
	ctx := t.Context()
	if head := must[int64](t)(s.Head(ctx)); head != 0 {
		t.Errorf("head is %d", head)
	}
	same(t, "empty snapshot", must[storage.Snapshot](t)(s.Load(ctx)), storage.Snapshot{})
	if changes := must[[]storage.Change](t)(s.Changes(ctx, 0, 10)); len(changes) != 0 {
		t.Errorf("changes: %v", changes)
	}
	noError(t, s.AppendAudit(ctx, func(head int64) (storage.AuditBatch, error) {
		if head != 0 {
			t.Errorf("head is %d in build", head)
		}
		return storage.AuditBatch{}, nil
	}))
}

func testChanges(t *testing.T, s storage.Store) {
	ctx := t.Context()
	var want []storage.Change
	for i := range 5 {
		tenant := addTenant(t, s, fmt.Sprint("t", i))
		want = append(want, storage.Change{Sequence: int64(i + 1), Kind: storage.KindTenant, ID: tenant.ID})
	}
	for after := range 6 {
		for limit := 1; limit <= 6; limit++ {
			end := min(after+limit, len(want))
			got := must[[]storage.Change](t)(s.Changes(ctx, int64(after), limit))
			same(t, fmt.Sprintf("%d after %d", limit, after), got, append([]storage.Change(nil), want[after:end]...))
		}
	}
	_, err := s.Changes(ctx, 6, 10) // beyond the head: another history
	wantError(t, err, storage.ErrNotFound)
	_, err = s.Changes(ctx, 0, 0)
	wantError(t, err, storage.ErrInvalid)
}

func testTrimmed(t *testing.T, open Opener) {
	const keep, writes = 20, 65
	s := open(t, Options{KeepChanges: keep})
	t.Cleanup(func() { noError(t, s.Close()) })
	ctx := t.Context()
	for i := range writes {
		noError(t, s.EndSession(ctx, storage.EndedSession{ID: fmt.Sprint(i), Expires: moment(0)}))
	}
	first := int64(-1)
	for after := int64(0); after <= writes; after++ {
		changes, err := s.Changes(ctx, after, writes)
		switch {
		case errors.Is(err, storage.ErrNotFound) && first < 0: // trimmed
		case err != nil:
			t.Fatalf("after %d: %v", after, err)
		default:
			if first < 0 {
				first = after
			}
			if len(changes) != int(writes-after) {
				t.Errorf("%d changes after %d", len(changes), after)
			}
		}
	}
	if first < keep || first > writes-keep {
		t.Errorf("changes after %d of %d are kept, want at least %d and not many more", first, writes, keep)
	}
}

// Readers that follow the feed see each change once, in order, and by then
// what changed can be read.
func testGaplessInOrder(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	const writers, each = 6, 12
	total := int64(writers * each)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for seen := int64(0); seen < total; {
				changes, err := s.Changes(ctx, seen, 7)
				if err != nil {
					t.Errorf("after %d: %v", seen, err)
					return
				}
				for _, c := range changes {
					if c.Sequence != seen+1 {
						t.Errorf("after %d comes %d", seen, c.Sequence)
						return
					}
					seen = c.Sequence
					if _, err := s.GetEndedSession(ctx, c.ID); err != nil {
						t.Errorf("change %d of %s: %v", c.Sequence, c.ID, err)
						return
					}
				}
			}
		})
	}
	for _, err := range race(writers, func(w int) error {
		for i := range each {
			// Failing writes leave no gap.
			if err := s.DeleteTenant(ctx, "unknown", 0); !errors.Is(err, storage.ErrNotFound) {
				return fmt.Errorf("delete: %w", err)
			}
			if err := s.EndSession(ctx, storage.EndedSession{ID: fmt.Sprintf("%d-%d", w, i), Expires: moment(0)}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
			cancel() // the readers would wait for ever
		}
	}
	readers.Wait()
	if head := must[int64](t)(s.Head(t.Context())); head != total {
		t.Errorf("head is %d, want %d", head, total)
	}
}

func testHeadStandsStillDuringBuild(t *testing.T, s storage.Store) {
	ctx := t.Context()
	addTenant(t, s, "before")
	var building atomic.Bool
	written := make(chan error, 1)
	noError(t, s.AppendAudit(ctx, func(head int64) (storage.AuditBatch, error) {
		building.Store(true)
		if head != 1 {
			t.Errorf("head is %d in build, want 1", head)
		}
		go func() {
			_, err := s.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: "during"}, Name: "during"})
			if building.Load() {
				err = errors.Join(err, errors.New("a write ended while build ran"))
			}
			written <- err
		}()
		select {
		case err := <-written:
			t.Errorf("written during build: %v", err)
			written <- err
		case <-time.After(150 * time.Millisecond): // what must not happen has had its chance
		}
		building.Store(false)
		return chain("w", 1, 1), nil
	}))
	noError(t, <-written)
	if head := must[int64](t)(s.Head(ctx)); head != 2 {
		t.Errorf("head is %d afterwards, want 2", head)
	}
}

// Whatever was acknowledged before an append began is in the head that build
// is given.
func testBuildSeesTheNewestHead(t *testing.T, s storage.Store) {
	ctx := t.Context()
	var acknowledged atomic.Int64
	done := make(chan struct{})
	var appenders sync.WaitGroup
	for a := range 3 {
		appenders.Go(func() {
			writer := fmt.Sprint("writer", a)
			for sequence := int64(1); ; sequence++ {
				select {
				case <-done:
					return
				default:
				}
				known := acknowledged.Load()
				err := s.AppendAudit(ctx, func(head int64) (storage.AuditBatch, error) {
					if head < known {
						t.Errorf("build was given head %d, %d was acknowledged before", head, known)
					}
					return chain(writer, sequence, 1), nil
				})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	for i := range 40 {
		noError(t, s.EndSession(ctx, storage.EndedSession{ID: fmt.Sprint(i), Expires: moment(0)}))
		acknowledged.Store(int64(i + 1))
	}
	close(done)
	appenders.Wait()
}

func testLoad(t *testing.T, s storage.Store) {
	ctx := t.Context()
	tenant, location := addTenant(t, s, "t"), addLocation(t, s, "l")
	user, agent := addUser(t, s, tenant.ID, "u"), addAgent(t, s, tenant.ID, "a")
	grant := addGrant(t, s, tenant.ID, user.ID, location.ID, "g")

	// Of certificates only the revoked ones that are not past their end.
	now := time.Now()
	var revoked []storage.Certificate
	for serial, c := range map[string]struct {
		end     time.Time
		revoke  bool
		present bool
	}{
		"good": {now.Add(time.Hour), false, false}, "revoked": {now.Add(time.Hour), true, true},
		"over": {now.Add(-time.Hour), true, false}, "endless": {time.Time{}, true, true},
	} {
		v := certificate(t, serial)
		v.NotAfter = c.end
		v = must[storage.Certificate](t)(s.RecordCertificate(ctx, v))
		if c.revoke {
			v = must[storage.Certificate](t)(s.RevokeCertificate(ctx, storage.Certificate{Serial: serial, RevokedAt: now}))
		}
		if c.present {
			revoked = append(revoked, v)
		}
	}
	noError(t, s.EndSession(ctx, storage.EndedSession{ID: "jti", Expires: moment(0)}))
	must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), ""))
	live := must[storage.Revocation](t)(s.CreateRevocation(ctx, revocation(t)))
	over := revocation(t)
	over.State = storage.RevocationExpired
	must[storage.Revocation](t)(s.CreateRevocation(ctx, over))

	got := must[storage.Snapshot](t)(s.Load(ctx))
	byserial := func(v []storage.Certificate) map[string]storage.Certificate {
		m := map[string]storage.Certificate{}
		for _, c := range v {
			m[c.Serial] = c
		}
		return m
	}
	same(t, "revoked certificates", byserial(got.RevokedCertificates), byserial(revoked))
	got.RevokedCertificates = nil
	user.PasswordHash = ""
	same(t, "snapshot", got, storage.Snapshot{
		Sequence: must[int64](t)(s.Head(ctx)),
		Tenants:  []storage.Tenant{tenant}, Users: []storage.User{user}, Agents: []storage.Agent{agent},
		Locations: []storage.Location{location}, Grants: []storage.Grant{grant},
		EndedSessions: []storage.EndedSession{{ID: "jti", Expires: kept(moment(0))}},
		Revocations:   []storage.Revocation{live},
	})
}

// Each session ended is one change, each tenant is one change with one
// location after it: a snapshot must fit its own sequence.
func testLoadIsOneMoment(t *testing.T, s storage.Store) {
	ctx := t.Context()
	done := make(chan struct{})
	var loads sync.WaitGroup
	for range 2 {
		loads.Go(func() {
			for {
				snap, err := s.Load(ctx)
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				tenants, locations, sessions := len(snap.Tenants), len(snap.Locations), len(snap.EndedSessions)
				if int(snap.Sequence) != tenants+locations+sessions || tenants-locations > 1 || locations-sessions > 1 {
					t.Errorf("at %d: %d tenants, %d locations, %d sessions", snap.Sequence, tenants, locations, sessions)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 25 {
		name := fmt.Sprint("n", i)
		addTenant(t, s, name)
		addLocation(t, s, name)
		noError(t, s.EndSession(ctx, storage.EndedSession{ID: name, Expires: moment(0)}))
	}
	close(done)
	loads.Wait()
}

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

func awaitValue(t *testing.T, watch <-chan struct{}) {
	t.Helper()
	select {
	case _, open := <-watch:
		if !open {
			t.Fatal("the watch has ended")
		}
	case <-time.After(patience):
		t.Fatal("the watch tells nothing")
	}
}

func awaitEnd(t *testing.T, watch <-chan struct{}) {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case _, open := <-watch:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the watch does not end")
		}
	}
}

func testWatchTells(t *testing.T, s storage.Store) {
	a, b := must[<-chan struct{}](t)(s.Watch(t.Context())), must[<-chan struct{}](t)(s.Watch(t.Context()))
	// Nobody reads b: values coalesce there, and writers do not wait for it.
	for seen, i := int64(0), 0; i < 10; i++ {
		addTenant(t, s, fmt.Sprint("t", i))
		for seen <= int64(i) { // a value may be one of an earlier write
			awaitValue(t, a)
			seen = must[int64](t)(s.Head(t.Context()))
		}
	}
	awaitValue(t, b)
	if cap(b) != 1 {
		t.Errorf("the channel keeps up to %d values, want 1", cap(b))
	}
}

func testWatchEndsWithItsContext(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	ending, staying := must[<-chan struct{}](t)(s.Watch(ctx)), must[<-chan struct{}](t)(s.Watch(t.Context()))
	cancel()
	awaitEnd(t, ending)
	addTenant(t, s, "t")
	awaitValue(t, staying)

	over, err := s.Watch(ctx) // whose context has ended before
	if err == nil {
		awaitEnd(t, over)
	} else {
		wantError(t, err, context.Canceled)
	}
}

func testWatchEndsWithClose(t *testing.T, open Opener) {
	s := open(t, Options{})
	watch := must[<-chan struct{}](t)(s.Watch(t.Context()))
	noError(t, s.Close())
	awaitEnd(t, watch)
	_, err := s.Watch(t.Context())
	wantError(t, err, storage.ErrUnavailable)
}
