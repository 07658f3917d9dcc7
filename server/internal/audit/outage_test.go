package audit_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Storage fails: the whole batch is told, nothing of it counts as written, the
// trail recovers by itself, and the chain goes on as if nothing had been.
func TestStorageFails(t *testing.T) {
	for name, fault := range map[string]func(*fake, error){
		"away":      func(f *fake, err error) { f.away = err },
		"disk full": func(f *fake, err error) { f.readOnly = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				trail := open(t, f, audit.Options{})
				add(t, trail, "before")
				f.set(func(f *fake) { fault(f, storage.ErrUnavailable) })
				var a answers
				for i := range 20 {
					a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
				}
				a.wg.Wait()
				for id, err := range a.got {
					var told *reason.Error
					if !errors.As(err, &told) || told.Reason != reason.AuditUnavailable || told.RetryAfter <= 0 ||
						!errors.Is(err, storage.ErrUnavailable) {
						t.Errorf("%s: %v", id, err)
					}
				}
				if err := trail.Healthy(); !reason.Is(err, reason.AuditUnavailable) {
					t.Errorf("Healthy = %v", err)
				}
				f.set(func(f *fake) { f.calls = 0 })
				<-time.After(10 * time.Minute)
				if n := f.tried(); n < 100 || n > 500 {
					t.Errorf("%d attempts in ten minutes", n)
				}
				f.set(func(f *fake) { fault(f, nil) })
				<-time.After(5 * time.Second) // nobody asks for anything
				synctest.Wait()
				if err := trail.Healthy(); err != nil {
					t.Errorf("Healthy = %v", err)
				}
				add(t, trail, "after")
				stored := f.stored()
				if len(stored) != 4 || stored[2].Event != string(audit.AuditResumed) || stored[2].Detail["failed"] != "20" ||
					stored[2].Detail["since"] == "" || stored[3].CredentialID != "after" {
					t.Errorf("stored %+v", stored)
				}
				if s := trail.Stats(); s.Failed != 20 || s.Failures < 3 {
					t.Errorf("stats %+v", s)
				}
				intact(t, f)
			})
		})
	}
}

// The first request after an outage is served at once, with the record of the
// outage before it.
func TestRecoveryByTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		f.set(func(f *fake) { f.readOnly = storage.ErrUnavailable })
		if _, err := trail.Append(t.Context(), issued("lost"), audit.NoFence); err == nil {
			t.Fatal("no error")
		}
		f.set(func(f *fake) { f.readOnly = nil })
		add(t, trail, "next")
		if n := f.count(string(audit.AuditResumed)); n != 1 {
			t.Errorf("%d records of the outage", n)
		}
		if err := trail.Healthy(); err != nil {
			t.Errorf("Healthy = %v", err)
		}
		add(t, trail, "more")
		if n := f.count(string(audit.AuditResumed)); n != 1 {
			t.Errorf("%d records of the outage", n)
		}
		intact(t, f)
	})
}

// The answer to a commit is lost although it took effect: what follows is put
// after it.
func TestCommitInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		writer := trail.Writer()
		f.set(func(f *fake) { f.lost = fmt.Errorf("%w: %w", storage.ErrUnavailable, storage.ErrInDoubt) })
		if _, err := trail.Append(t.Context(), issued("doubtful"), audit.NoFence); !reason.Is(err, reason.AuditUnavailable) {
			t.Fatalf("Append = %v", err)
		}
		<-time.After(time.Minute) // probes are lost as well
		f.set(func(f *fake) { f.lost = nil })
		add(t, trail, "next")
		if trail.Writer() != writer {
			t.Error("another chain was begun")
		}
		stored := f.stored()
		if stored[1].CredentialID != "doubtful" || stored[len(stored)-1].CredentialID != "next" {
			t.Errorf("stored %+v", stored)
		}
		intact(t, f)
	})
}

// Storage lost what had been durable. The trail goes on in another chain, and
// the loss shows.
func TestStorageLosesTheChain(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(f *fake, older storage.AuditHead)
		want audit.FaultKind
	}{
		"the end": {func(f *fake, older storage.AuditHead) {
			f.heads[older.Writer] = older
			f.records = f.records[:older.Sequence]
		}, audit.FaultRolledBack},
		"a foreign head": {func(f *fake, older storage.AuditHead) {
			h := f.heads[older.Writer]
			h.Sequence++
			f.heads[older.Writer] = h
		}, audit.FaultHeadForged},
		"all of it": {func(f *fake, older storage.AuditHead) {
			f.heads, f.records = map[string]storage.AuditHead{}, nil
		}, audit.FaultChainMissing},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				trail := open(t, f, audit.Options{})
				writer := trail.Writer()
				add(t, trail, "1")
				older := f.heads[writer]
				add(t, trail, "2", "3")
				f.set(func(f *fake) { c.lose(f, older); f.away = storage.ErrUnavailable })
				if _, err := trail.Append(t.Context(), issued("4"), audit.NoFence); err == nil {
					t.Fatal("no error")
				}
				f.set(func(f *fake) { f.away = nil })
				add(t, trail, "5")
				if trail.Writer() == writer {
					t.Error("the lost chain was continued")
				}
				faults := map[string][]audit.Fault{}
				for _, chain := range verify(t, f).Chains {
					faults[chain.Writer] = chain.Faults
				}
				if old := faults[writer]; len(old) == 0 || old[0].Kind != c.want {
					t.Errorf("the lost chain: %v", old)
				}
				if now := faults[trail.Writer()]; len(now) > 0 {
					t.Errorf("the new chain: %v", now)
				}
			})
		})
	}
}

// Another replica trims the chain between two commits.
func TestTrimmedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		one, two := open(t, f, audit.Options{}), open(t, f, audit.Options{})
		add(t, one, "1", "2", "3")
		<-time.After(time.Hour)
		if _, err := two.Trim(t.Context(), time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n := f.count(string(audit.CredentialIssued)); n != 0 {
			t.Errorf("%d old records are left", n)
		}
		writer := one.Writer()
		add(t, one, "4")
		if one.Writer() != writer {
			t.Error("another chain was begun")
		}
		if err := one.Healthy(); err != nil {
			t.Errorf("Healthy = %v", err)
		}
		intact(t, f)
	})
}

// Storage hangs: callers leave, health tells, the commit is given up, and the
// trail goes on.
func TestStorageHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		f.set(func(f *fake) { f.hang = true })
		var a answers
		a.append(t.Context(), trail, "hangs", audit.NoFence)
		<-time.After(6 * time.Second)
		if err := trail.Healthy(); !reason.Is(err, reason.AuditUnavailable) {
			t.Errorf("Healthy = %v", err)
		}
		<-time.After(5 * time.Second)
		a.wg.Wait()
		if err := a.got["hangs"]; !reason.Is(err, reason.AuditUnavailable) {
			t.Errorf("hangs: %v", err)
		}
		f.set(func(f *fake) { f.hang = false })
		<-time.After(20 * time.Second)
		add(t, trail, "next")
		intact(t, f)
	})
}
