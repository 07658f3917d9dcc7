package storagetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// replicaCases open several stores on one database at once.
var replicaCases = map[string]func(*testing.T, Opener){
	"OpenTogether":        testOpenTogether,
	"WatchHearsOthers":    testWatchHearsOtherReplicas,
	"HeadStands":          testHeadStandsForOtherReplicas,
	"RacesAcross":         testRacesAcrossReplicas,
	"GaplessAcross":       testGaplessAcrossReplicas,
	"WritesAreNotStarved": testAppendsDoNotStarveWrites,
}

// replicas opens n stores at the same time.
func replicas(t *testing.T, open Opener, n int) []storage.Store {
	t.Helper()
	stores := make([]storage.Store, n)
	race(n, func(i int) error {
		stores[i] = open(t, Options{})
		return nil
	})
	t.Cleanup(func() {
		for _, s := range stores {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return stores
}

func testOpenTogether(t *testing.T, open Opener) {
	for i, s := range replicas(t, open, 5) {
		addTenant(t, s, fmt.Sprint("t", i))
	}
}

func testWatchHearsOtherReplicas(t *testing.T, open Opener) {
	stores := replicas(t, open, 3)
	watch := must[<-chan struct{}](t)(stores[0].Watch(t.Context()))
	for seen, i := int64(0), 0; i < 10; i++ {
		addTenant(t, stores[1+i%2], fmt.Sprint("t", i))
		for seen <= int64(i) { // what was seen before was told before
			awaitValue(t, watch)
			seen = must[int64](t)(stores[0].Head(t.Context()))
		}
	}
}

func testHeadStandsForOtherReplicas(t *testing.T, open Opener) {
	stores := replicas(t, open, 2)
	written := make(chan error, 1)
	noError(t, stores[0].AppendAudit(t.Context(), func(head int64) (storage.AuditBatch, error) {
		go func() {
			written <- result(stores[1].CreateTenant(t.Context(), storage.Tenant{Meta: storage.Meta{ID: "id"}, Name: "n"}))
		}()
		select {
		case err := <-written:
			t.Errorf("another replica wrote during build: %v", err)
			written <- err
		case <-time.After(150 * time.Millisecond): // what must not happen has had its chance
		}
		return chain("w", 1, 1), nil
	}))
	noError(t, <-written)
}

func testRacesAcrossReplicas(t *testing.T, open Opener) {
	stores := replicas(t, open, 3)
	tenant := addTenant(t, stores[0], "t")
	noError(t, stores[0].CreateJoinToken(t.Context(), token(tenant.ID, "token", 10)))
	of := func(i int) storage.Store { return stores[i%len(stores)] }
	oneWinner(t, race(9, func(i int) error { return of(i).UseJoinToken(t.Context(), "token", moment(i)) }), storage.ErrConflict)
	oneWinner(t, race(9, func(i int) error {
		return result(of(i).AddKey(t.Context(), sealedKey(t, "token"), ""))
	}), storage.ErrConflict)
	oneWinner(t, race(9, func(i int) error { return result(of(i).UpdateTenant(t.Context(), tenant)) }), storage.ErrConflict)
	oneWinner(t, race(9, func(i int) error { return tryAppend(t.Context(), of(i), chain("w", 1, 1)) }), storage.ErrConflict)
}

func testGaplessAcrossReplicas(t *testing.T, open Opener) {
	stores := replicas(t, open, 3)
	const writers, each = 6, 10
	var reader sync.WaitGroup
	reader.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for seen := int64(0); seen < writers*each; {
			changes, err := stores[0].Changes(ctx, seen, 100)
			if err != nil {
				t.Errorf("after %d: %v", seen, err)
				return
			}
			for _, c := range changes {
				if c.Sequence != seen+1 {
					t.Errorf("after %d comes %d", seen, c.Sequence)
				}
				seen = c.Sequence
			}
		}
	})
	for _, err := range race(writers, func(w int) error {
		for i := range each {
			s := stores[(w+i)%len(stores)]
			if err := s.EndSession(t.Context(), storage.EndedSession{ID: fmt.Sprintf("%d-%d", w, i), Expires: moment(0)}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	reader.Wait()
}

// Appends of many replicas overlap without a pause between them. A write that
// must wait for them all, a revocation say, gets its turn nonetheless.
func testAppendsDoNotStarveWrites(t *testing.T, open Opener) {
	stores := replicas(t, open, 3)
	done := make(chan struct{})
	var appenders sync.WaitGroup
	for a := range 6 {
		appenders.Go(func() {
			writer := fmt.Sprint("w", a)
			for sequence := int64(1); ; sequence++ {
				select {
				case <-done:
					return
				default:
				}
				err := stores[a%len(stores)].AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) {
					<-time.After(2 * time.Millisecond) // so that appends always overlap
					return chain(writer, sequence, 1), nil
				})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	for i := range 10 {
		begin := time.Now()
		addTenant(t, stores[0], fmt.Sprint("t", i))
		if took := time.Since(begin); took > patience {
			t.Errorf("a write waited %v for appends", took)
		}
	}
	close(done)
	appenders.Wait()
}
