package directory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
)

// listener is an observer that remembers what it was told.
type listener struct {
	mu      sync.Mutex
	changes []storage.Change
	batches []int
	inside  atomic.Int32
	t       testing.TB
}

func listen(t testing.TB, d *directory.Directory) *listener {
	l := &listener{t: t}
	d.Observe(l.hear)
	return l
}

func (l *listener) hear(changes []storage.Change) {
	if l.inside.Add(1) != 1 {
		l.t.Error("an observer was called concurrently")
	}
	defer l.inside.Add(-1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, changes...)
	l.batches = append(l.batches, len(changes))
	clear(changes) // it is the observer's own
}

func (l *listener) heard() []storage.Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.changes)
}

func (l *listener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes, l.batches = nil, nil
}

func TestObserversHearEveryChangeInOrder(t *testing.T) {
	f := newFake()
	d := open(t, f)
	one, two := listen(t, d), listen(t, d)
	var stopped int
	stop := d.Observe(func([]storage.Change) { stopped++ })
	stop()
	run(t, d)
	f.commit(everything()...)
	f.commit(put(storage.Tenant{Meta: meta("t9"), Name: "nine"}), gone(storage.KindTenant, "t9"))
	// Kinds that the directory does not hold, or does not know, are told too.
	f.commit(write{storage.KindSealedKey, "k1", "key"}, write{"tea", "x", "pot"})
	synced(t, d)
	for _, l := range []*listener{one, two} {
		if got := l.heard(); !slices.Equal(got, f.feed) {
			t.Errorf("heard %v, want %v", got, f.feed)
		}
	}
	if stopped > 0 {
		t.Error("an observer was called after its stop")
	}
	if d.Sequence() != f.head() {
		t.Errorf("Sequence = %d, head %d", d.Sequence(), f.head())
	}
}

func TestLostNotificationIsFoundWithinASecond(t *testing.T) {
	for name, lose := range map[string]func(*fake){
		"lost":    func(f *fake) { f.deaf = true },
		"refused": func(f *fake) { f.mute = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.set(lose)
				d := start(t, f)
				heard := listen(t, d)
				<-time.After(10*time.Second + 1)
				f.commit(put(acme))
				<-time.After(time.Second)
				synctest.Wait()
				if _, ok := d.Tenant("t1"); !ok || len(heard.heard()) != 1 {
					t.Errorf("there %v, heard %v", ok, heard.heard())
				}
			})
		})
	}
}

// A watch that ends is begun again, and what came between is not missed.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		synctest.Wait()
		for i := range 3 {
			f.hangUp()
			f.commit(put(acme))
			<-time.After(200 * time.Millisecond)
			synctest.Wait()
			if want := int64(2*i + 1); d.Sequence() != want {
				t.Errorf("between watches: sequence %d, want %d", d.Sequence(), want)
			}
			f.commit(put(borg)) // no time passes: only a notification tells
			synctest.Wait()
			if want := int64(2*i + 2); d.Sequence() != want {
				t.Errorf("with the new watch: sequence %d, want %d", d.Sequence(), want)
			}
		}
	})
}

// Storage goes away and returns: the directory says so, keeps answering, does
// not hammer, and catches up.
func TestStorageGoesAwayAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.commit(put(acme))
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		if err := d.Behind(); err != nil {
			t.Errorf("behind at the start: %v", err)
		}
		f.set(func(f *fake) { f.away = storage.ErrUnavailable; f.heads = 0 })
		answer := make(chan error, 1)
		go func() { answer <- d.Sync(t.Context()) }()
		for range 600 { // notifications pour in meanwhile
			<-time.After(100 * time.Millisecond)
			f.commit(put(borg))
		}
		if err := d.Behind(); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Behind = %v", err)
		}
		if _, ok := d.Tenant("t1"); !ok {
			t.Error("the last known picture is gone")
		}
		// Half of the longest wait at the least: two a second.
		if heads := f.asked(); heads > 130 || heads < 50 {
			t.Errorf("asked %d times in a minute", heads)
		}
		f.set(func(f *fake) { f.away = nil })
		<-time.After(time.Second)
		synctest.Wait()
		if err := d.Behind(); err != nil {
			t.Errorf("behind after the return: %v", err)
		}
		if err := <-answer; err != nil {
			t.Errorf("Sync = %v", err)
		}
		if got := heard.heard(); len(got) != 600 {
			t.Errorf("heard %d changes", len(got))
		}
	})
}

// Storage that hangs is given up after a while and asked again.
func TestStorageHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		synctest.Wait()
		f.set(func(f *fake) { f.hang = true })
		<-time.After(7 * time.Second)
		if err := d.Behind(); err == nil || !strings.Contains(err.Error(), "not answered") {
			t.Errorf("Behind = %v", err)
		}
		<-time.After(7 * time.Second)
		if err := d.Behind(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Behind = %v", err)
		}
		f.set(func(f *fake) { f.hang = false })
		f.commit(put(acme))
		<-time.After(12 * time.Second)
		synctest.Wait()
		if err := d.Behind(); err != nil || d.Sequence() != 1 {
			t.Errorf("Behind = %v, sequence %d", err, d.Sequence())
		}
	})
}

func TestTrimmedFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.commit(everything()...)
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		heard.forget()

		f.set(func(f *fake) { f.away = storage.ErrUnavailable })
		<-time.After(time.Second)
		disabled := box
		disabled.Disabled = true // at the same revision: contents count
		changed := weekly
		changed.Actions = []string{"s3:PutObject"}
		lifted := second
		lifted.State = storage.RevocationExpired
		revoked := sound
		revoked.RevokedAt = time.Unix(5, 0).UTC()
		f.commit(put(disabled), put(changed), gone(storage.KindGrant, "g2"), put(lifted), put(revoked),
			put(storage.Tenant{Meta: meta("t3"), Name: "new"}), gone(storage.KindUser, "u2"), gone(storage.KindSession, "s1"),
			gone(storage.KindLocation, "l1"), put(annual), gone(storage.KindGrant, "g3"))
		f.trim()
		f.set(func(f *fake) { f.away = nil })
		synced(t, d)

		head := f.head()
		want := []storage.Change{
			{Kind: storage.KindTenant, ID: "t3"}, {Kind: storage.KindUser, ID: "u2"}, {Kind: storage.KindAgent, ID: "a1"},
			{Kind: storage.KindLocation, ID: "l1"}, {Kind: storage.KindGrant, ID: "g1"}, {Kind: storage.KindGrant, ID: "g3"},
			{Kind: storage.KindCertificate, ID: "c2"}, {Kind: storage.KindSession, ID: "s1"},
			{Kind: storage.KindRevocation, ID: "r2"}, {Kind: storage.KindSealedKey},
		}
		for i := range want {
			want[i].Sequence = head
		}
		if got := heard.heard(); !slices.Equal(got, want) {
			t.Errorf("heard %v\nwant  %v", got, want)
		}
		if d.Sequence() != head || f.loads != 2 {
			t.Errorf("sequence %d of %d, %d loads", d.Sequence(), head, f.loads)
		}
		check(t, "AgentByName", disabled)(d.AgentByName("t1", "box"))
		check(t, "CertificateRevoked", "")(d.CertificateRevoked("0a1c"))
		// From here on the feed leads again.
		f.commit(put(box))
		synced(t, d)
		check(t, "AgentByName", box)(d.AgentByName("t1", "box"))
		if f.loads != 2 {
			t.Errorf("%d loads", f.loads)
		}
	})
}

// A load that fails is repeated, and its differences are told once.
func TestReloadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		f.set(func(f *fake) { f.deaf, f.noLoad = true, storage.ErrUnavailable })
		f.commit(put(acme))
		f.trim()
		<-time.After(10 * time.Second)
		if err := d.Behind(); !errors.Is(err, storage.ErrUnavailable) || f.loads < 5 {
			t.Errorf("Behind = %v after %d loads", err, f.loads)
		}
		f.set(func(f *fake) { f.noLoad = nil })
		synced(t, d)
		want := []storage.Change{{Sequence: 1, Kind: storage.KindTenant, ID: "t1"}, {Sequence: 1, Kind: storage.KindSealedKey}}
		if got := heard.heard(); !slices.Equal(got, want) {
			t.Errorf("heard %v, want %v", got, want)
		}
		check(t, "Tenant", acme)(d.Tenant("t1"))
	})
}

// Storage was restored to an older state: its head went back.
func TestHeadGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.commit(put(acme))
		backup := f.head()
		f.commit(put(borg), put(box))
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		f.set(func(f *fake) {
			f.feed = f.feed[:backup]
			delete(f.entities[storage.KindTenant], "t2")
			delete(f.entities[storage.KindAgent], "a1")
		})
		synced(t, d)
		if d.Sequence() != backup {
			t.Errorf("sequence %d, want %d", d.Sequence(), backup)
		}
		absent(t, "borg")(d.Tenant("t2"))
		if got := heard.heard(); len(got) != 3 {
			t.Errorf("heard %v", got)
		}
	})
}

// A feed that skips an entry is not believed.
func TestGapInTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		f.set(func(f *fake) {
			f.entities[storage.KindTenant] = map[string]any{"t1": acme, "t2": borg}
			f.feed = []storage.Change{{Sequence: 2, Kind: storage.KindTenant, ID: "t2"}, {Sequence: 3, Kind: storage.KindTenant, ID: "t2"}}
		})
		synced(t, d)
		if got := heard.heard(); len(got) != 3 || f.loads != 2 {
			t.Errorf("heard %v after %d loads", got, f.loads)
		}
		check(t, "Tenant", acme)(d.Tenant("t1"))
	})
}

// Deleting a tenant takes what it has with it.
func TestCascade(t *testing.T) {
	const agents = 1500
	f := newFake()
	f.commit(put(acme), put(ann), put(west), put(weekly), put(borg), put(boxToo))
	var cascade []write
	for i := range agents {
		id := fmt.Sprint("agent", i)
		f.commit(put(storage.Agent{Meta: meta(id), TenantID: "t1", Name: id}))
		cascade = append(cascade, gone(storage.KindAgent, id))
	}
	d := start(t, f)
	heard := listen(t, d)
	f.commit(append(cascade, gone(storage.KindGrant, "g1"), gone(storage.KindUser, "u1"), gone(storage.KindTenant, "t1"))...)
	synced(t, d)
	if got := len(heard.heard()); got != agents+3 {
		t.Errorf("heard %d changes", got)
	}
	for i := range agents {
		absent(t, "an agent")(d.AgentByName("t1", fmt.Sprint("agent", i)))
	}
	absent(t, "the user")(d.UserByLogin("t1", "ann"))
	absent(t, "the tenant")(d.Tenant("t1"))
	check(t, "another's agent", boxToo)(d.Agent("a2"))
	if g := d.GrantsFor("t1", ""); len(g) > 0 {
		t.Errorf("grants are left: %v", g)
	}
}

// Ten thousand changes are fetched in bounded batches, a bounded number at
// once, and look-ups do not wait for storage meanwhile.
func TestManyChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.commit(put(acme))
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		var writes []write
		for i := range 10_000 {
			id := fmt.Sprint("agent", i)
			writes = append(writes, put(storage.Agent{Meta: meta(id), TenantID: "t1", Name: id}))
		}
		// A database a millisecond away.
		f.set(func(f *fake) { f.fetched = func() { <-time.After(time.Millisecond) } })
		f.commit(writes...)
		begun := time.Now()
		answer := make(chan error, 1)
		go func() { answer <- d.Sync(t.Context()) }()
		<-time.After(500 * time.Microsecond)
		check(t, "Tenant meanwhile", acme)(d.Tenant("t1"))
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		if f.mostFetch > 8 || f.mostFetch < 2 {
			t.Errorf("%d fetched at once", f.mostFetch)
		}
		if len(heard.heard()) != len(writes) || slices.Max(heard.batches) > 512 {
			t.Errorf("heard %d changes, at most %d at once", len(heard.heard()), slices.Max(heard.batches))
		}
		check(t, "the last", storage.Agent{Meta: meta("agent9999"), TenantID: "t1", Name: "agent9999"})(d.AgentByName("t1", "agent9999"))
	})
}

// A fetch that fails in the middle leaves the picture as it was, and is
// repeated whole.
func TestFetchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		d := start(t, f)
		heard := listen(t, d)
		synctest.Wait()
		var calls atomic.Int32
		f.set(func(f *fake) {
			f.fetched = func() {
				if calls.Add(1) == 1 {
					f.set(func(f *fake) { f.away = storage.ErrUnavailable })
				}
			}
		})
		f.commit(everything()...)
		<-time.After(time.Minute)
		if d.Sequence() != 0 || len(heard.heard()) > 0 {
			t.Errorf("sequence %d, heard %v", d.Sequence(), heard.heard())
		}
		f.set(func(f *fake) { f.away = nil })
		synced(t, d)
		checkLookUps(t, d)
		if !slices.Equal(heard.heard(), f.feed) {
			t.Errorf("heard %v", heard.heard())
		}
	})
}

// What nobody can use any more is forgotten, with a margin for clocks.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		almost := now.Add(-47 * time.Hour)
		f := newFake()
		f.commit(
			put(storage.Certificate{Meta: meta("c1"), Serial: "01", RevokedAt: now, NotAfter: almost}),
			put(storage.Certificate{Meta: meta("c2"), Serial: "02", RevokedAt: now, NotAfter: now.Add(time.Hour)}),
			put(storage.Certificate{Meta: meta("c3"), Serial: "03", RevokedAt: now}),
			put(storage.EndedSession{ID: "s1", Expires: almost}),
		)
		d := start(t, f)
		<-time.After(30 * time.Minute)
		if _, ok := d.CertificateRevoked("01"); !ok || !d.SessionEnded("s1") {
			t.Error("forgotten within the margin")
		}
		<-time.After(2 * time.Hour)
		for serial, want := range map[string]bool{"01": false, "02": true, "03": true} {
			if _, ok := d.CertificateRevoked(serial); ok != want {
				t.Errorf("%s revoked: %v", serial, ok)
			}
		}
		if d.SessionEnded("s1") {
			t.Error("the session is still held")
		}
	})
}

// An observer that rebuilds everything from what it is told ends with what
// storage holds, whatever happens to the feed on the way.
func TestObserverMissesNothing(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func history(t *testing.T, r *rand.Rand) {
	f := newFake()
	d := open(t, f)
	mirror := map[string]storage.Agent{}
	d.Observe(func(changes []storage.Change) {
		for _, c := range changes {
			if agent, ok := d.Agent(c.ID); ok {
				mirror[c.ID] = agent
			} else {
				delete(mirror, c.ID)
			}
		}
	})
	run(t, d)
	for step := range 300 {
		id := fmt.Sprint("a", r.IntN(20))
		switch r.IntN(12) {
		case 0:
			f.set(func(f *fake) { f.away = storage.ErrUnavailable })
		case 1, 2:
			f.set(func(f *fake) { f.away = nil })
		case 3:
			f.trim()
		case 4:
			f.hangUp()
		case 5:
			<-time.After(time.Duration(r.IntN(2000)) * time.Millisecond)
		case 6, 7:
			f.commit(gone(storage.KindAgent, id))
		default:
			f.commit(put(storage.Agent{Meta: storage.Meta{ID: id, Revision: int64(step)}, TenantID: "t1", Name: id}))
		}
	}
	f.set(func(f *fake) { f.away = nil })
	synced(t, d)
	stored := all[storage.Agent](f, storage.KindAgent)
	if len(mirror) != len(stored) {
		t.Errorf("the observer holds %d agents, storage %d", len(mirror), len(stored))
	}
	for _, agent := range stored {
		check(t, "Agent", agent)(d.Agent(agent.ID))
		if mirror[agent.ID] != agent {
			t.Errorf("the observer has %+v, storage %+v", mirror[agent.ID], agent)
		}
	}
}
