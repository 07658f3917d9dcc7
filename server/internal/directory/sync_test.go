package directory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Whatever was committed before Sync is applied and told when it returns, for
// many callers at once.
func TestSyncCoversWhatWasCommittedBefore(t *testing.T) {
	f := newFake()
	d := open(t, f)
	var told sync.Map
	d.Observe(func(changes []storage.Change) {
		for _, c := range changes {
			told.Store(c.ID, true)
		}
	})
	run(t, d)
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", worker, i)
				f.commit(put(storage.Tenant{Meta: meta(id), Name: id}))
				if err := d.Sync(t.Context()); err != nil {
					t.Errorf("Sync: %v", err)
					return
				}
				if _, ok := d.Tenant(id); !ok {
					t.Errorf("%s is not there after Sync", id)
				}
				if _, ok := told.Load(id); !ok {
					t.Errorf("nobody was told of %s", id)
				}
			}
		})
	}
	group.Wait()
}

// Sequence, read before a look-up, never promises more than the look-up gives:
// the audit fence rests on it.
func TestSequenceIsReadBeforeTheLookUps(t *testing.T) {
	f := newFake()
	version := func(v int64) storage.Tenant {
		return storage.Tenant{Meta: storage.Meta{ID: "t", Revision: v}, Name: "t"}
	}
	f.commit(put(version(1))) // the revision is the sequence
	d := start(t, f)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sequence := d.Sequence()
				if tenant, _ := d.Tenant("t"); tenant.Revision < sequence {
					t.Errorf("at sequence %d the tenant is of %d", sequence, tenant.Revision)
					return
				}
			}
		})
	}
	for v := range int64(500) {
		f.commit(put(version(v + 2)))
		if v%50 == 0 {
			synced(t, d)
		}
	}
	synced(t, d)
	close(stop)
	group.Wait()
	if d.Sequence() != 501 {
		t.Errorf("Sequence = %d", d.Sequence())
	}
}

func TestSyncRefusals(t *testing.T) {
	t.Run("before Run it waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			d := open(t, f)
			f.commit(put(acme))
			answer := make(chan error, 1)
			go func() { answer <- d.Sync(t.Context()) }()
			<-time.After(time.Hour)
			select {
			case err := <-answer:
				t.Fatalf("Sync = %v without Run", err)
			default:
			}
			if d.Behind() == nil {
				t.Error("not behind, though nothing follows")
			}
			run(t, d)
			if err := <-answer; err != nil {
				t.Errorf("Sync = %v", err)
			}
		})
	})
	t.Run("after Run it fails", func(t *testing.T) {
		d := open(t, newFake())
		stop := run(t, d)
		synced(t, d)
		stop()
		if err := d.Sync(t.Context()); !reason.Is(err, reason.Draining) {
			t.Errorf("Sync = %v", err)
		}
		if d.Behind() == nil {
			t.Error("not behind, though nothing follows any more")
		}
		if err := d.Run(t.Context()); err == nil {
			t.Error("Run began a second time")
		}
	})
	t.Run("a waiting one fails when Run ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			d := open(t, f)
			stop := run(t, d)
			f.set(func(f *fake) { f.away = storage.ErrUnavailable })
			answer := make(chan error, 1)
			go func() { answer <- d.Sync(t.Context()) }()
			<-time.After(time.Minute)
			stop()
			if err := <-answer; !reason.Is(err, reason.Draining) {
				t.Errorf("Sync = %v", err)
			}
		})
	})
	t.Run("storage away until the deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			d := start(t, f)
			f.set(func(f *fake) { f.away = storage.ErrUnavailable })
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := d.Sync(ctx)
			if !reason.Is(err, reason.StorageUnavailable) || !errors.Is(err, context.DeadlineExceeded) ||
				!errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("Sync = %v", err)
			}
		})
	})
}

// A slow observer delays Sync, because Sync promises that it was told; it
// delays no look-up, and readiness hears of it.
func TestSlowObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := open(t, f)
		release := make(chan struct{})
		d.Observe(func([]storage.Change) { <-release })
		behindIt := listen(t, d)
		run(t, d)
		synctest.Wait()
		f.commit(put(acme))
		answer := make(chan error, 1)
		go func() { answer <- d.Sync(t.Context()) }()
		<-time.After(6 * time.Second)
		select {
		case err := <-answer:
			t.Fatalf("Sync = %v before the observer was through", err)
		default:
		}
		check(t, "Tenant", acme)(d.Tenant("t1"))
		if err := d.Behind(); err == nil {
			t.Error("a stuck observer goes unnoticed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Sync(ctx); !reason.Is(err, reason.StorageUnavailable) {
			t.Errorf("Sync with a deadline = %v", err)
		}
		close(release)
		if err := <-answer; err != nil {
			t.Errorf("Sync = %v", err)
		}
		if len(behindIt.heard()) != 1 {
			t.Errorf("the observer behind it heard %v", behindIt.heard())
		}
		synctest.Wait()
		if err := d.Behind(); err != nil {
			t.Errorf("Behind = %v", err)
		}
	})
}
