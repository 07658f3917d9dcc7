package audit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		given := issued("c1")
		<-time.After(time.Hour)
		got, err := trail.Append(t.Context(), given, audit.NoFence)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := uuid.Parse(trail.Writer()); err != nil || id.Version() != 7 || got.Writer != trail.Writer() {
			t.Errorf("writer %q, of the record %q", trail.Writer(), got.Writer)
		}
		// The first record is the trail's own.
		stored := f.stored()
		if got.Sequence != 2 || got.PrevHash != stored[0].Hash || got.Hash != audit.Hash(got) || !got.Time.Equal(time.Now()) {
			t.Errorf("got %+v", got)
		}
		if want := time.Date(2026, 1, 2, 2, 4, 5, 678_901_000, time.UTC); got.Expires != want {
			t.Errorf("expires %v, want %v", got.Expires, want)
		}
		// What is given and what is given out are nobody else's.
		given.Detail["a"], got.Detail["b"] = "spoilt", "spoilt"
		if d := f.stored()[1].Detail; d["a"] != "1" || d["b"] != "2" {
			t.Errorf("stored %v", d)
		}
		if err := trail.Healthy(); err != nil {
			t.Errorf("Healthy = %v", err)
		}
		intact(t, f)
	})
}

func TestAppendRefusesUnknownEvents(t *testing.T) {
	f := newFake()
	trail := open(t, f, audit.Options{})
	for _, event := range []string{"", "credential.stolen"} {
		r := issued("c1")
		r.Event = event
		if _, err := trail.Append(t.Context(), r, audit.NoFence); !reason.Is(err, reason.Internal) {
			t.Errorf("%q: %v", event, err)
		}
	}
	if n := len(f.stored()); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestOpenRefusals(t *testing.T) {
	for name, fail := range map[string]func(*fake){
		"cannot read":  func(f *fake) { f.away = storage.ErrUnavailable },
		"cannot write": func(f *fake) { f.readOnly = storage.ErrUnavailable },
	} {
		f := newFake()
		f.set(fail)
		if _, err := audit.Open(t.Context(), f, key, audit.Options{}); !reason.Is(err, reason.AuditUnavailable) ||
			!errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, keys := range map[string][2]secret.String{
		"no key": {secret.New(""), key}, "short key": {secret.New("short"), key}, "short older key": {key, secret.New("short")},
	} {
		if _, err := audit.Open(t.Context(), newFake(), keys[0], audit.Options{OlderKeys: keys[1:]}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// A record that a stranger filled is stored all the same, and takes no other
// with it.
func TestHostileRecord(t *testing.T) {
	f := newFake()
	trail := open(t, f, audit.Options{})
	r := storage.AuditRecord{
		Event: string(audit.SessionRefused), Login: strings.Repeat("\x00\xff\x1b", 1<<18),
		Detail: map[string]string{"\x00": strings.Repeat("y", 1<<20)},
	}
	got, err := trail.Append(t.Context(), r, audit.NoFence)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Login) > storage.MaxKey || !utf8.ValidString(got.Login) || strings.ContainsRune(got.Login, 0) || !strings.Contains(got.Login, "cut from 786432 bytes") {
		t.Errorf("login %q", got.Login)
	}
	if v := got.Detail["\u2400"]; len(v) > storage.MaxKey || !strings.HasSuffix(v, "cut from 1048576 bytes]") {
		t.Errorf("detail %v", got.Detail)
	}
	intact(t, f)
}

// held holds the committer at its next commit, lets f queue requests, and
// releases it.
func held(t *testing.T, store *fake, f func()) {
	t.Helper()
	gate := make(chan struct{})
	store.set(func(s *fake) { s.gate = gate })
	f()
	synctest.Wait()
	store.set(func(s *fake) { s.gate = nil })
	close(gate)
	synctest.Wait()
}

// answers collects what many Appends answered, by credential id.
type answers struct {
	mu  sync.Mutex
	got map[string]error
	wg  sync.WaitGroup
}

func (a *answers) append(ctx context.Context, trail *audit.Trail, id string, fence int64) {
	a.wg.Go(func() {
		_, err := trail.Append(ctx, issued(id), fence)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.got == nil {
			a.got = map[string]error{}
		}
		a.got[id] = err
	})
}

func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var commits []audit.Commit
		trail := open(t, f, audit.Options{Committed: func(c audit.Commit) { commits = append(commits, c) }})
		var a answers
		held(t, f, func() {
			for i := range 601 {
				a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
			}
			synctest.Wait()
			if s := trail.Stats(); s.Queued < 600-256 {
				t.Errorf("%d queued", s.Queued)
			}
		})
		a.wg.Wait()
		for id, err := range a.got {
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if slices.Max(f.appended) != 256 || len(f.appended) > 5 {
			t.Errorf("batches of %v", f.appended)
		}
		if s := trail.Stats(); s.Records != 602 || s.Commits != int64(len(f.appended)) || len(commits) != len(f.appended) {
			t.Errorf("stats %+v, %d commits told, batches %v", s, len(commits), f.appended)
		}
		intact(t, f)
	})
}

// A stale fence is answered alone: the rest of its batch goes on.
func TestStaleFences(t *testing.T) {
	for _, twice := range []bool{false, true} {
		t.Run(fmt.Sprint("built twice ", twice), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.feed, f.twice = 7, twice
				trail := open(t, f, audit.Options{})
				fences := map[string]int64{"same": 7, "moved": 6, "none": audit.NoFence, "long ago": 0, "went back": 8, "also same": 7}
				var a answers
				held(t, f, func() {
					for id, fence := range fences {
						a.append(t.Context(), trail, id, fence)
					}
				})
				a.wg.Wait()
				var stored []string
				for _, r := range f.stored()[1:] {
					stored = append(stored, r.CredentialID)
				}
				for id, fence := range fences {
					stale := fence >= 0 && fence != 7
					if errors.Is(a.got[id], audit.ErrStale) != stale || (a.got[id] == nil) == stale {
						t.Errorf("%s: %v", id, a.got[id])
					}
					if slices.Contains(stored, id) == stale {
						t.Errorf("%s stored: %v", id, !stale)
					}
				}
				if s := trail.Stats(); s.Stale != 3 {
					t.Errorf("stats %+v", s)
				}
				intact(t, f)
			})
		})
	}
}

// A caller who hangs up is let go, and its record is stored all the same:
// nobody hides a refused login by not waiting for the answer.
func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		over, cancel := context.WithCancel(t.Context())
		cancel()
		var a answers
		held(t, f, func() {
			ctx, leave := context.WithCancel(t.Context())
			a.append(ctx, trail, "leaves", audit.NoFence)
			a.append(t.Context(), trail, "stays", audit.NoFence)
			synctest.Wait()
			a.append(over, trail, "never waited", audit.NoFence)
			leave()
		})
		a.wg.Wait()
		for id, gone := range map[string]bool{"leaves": true, "never waited": true, "stays": false} {
			if err := a.got[id]; errors.Is(err, context.Canceled) != gone || reason.Is(err, reason.AuditUnavailable) != gone {
				t.Errorf("%s: %v", id, err)
			}
		}
		if n := f.count(string(audit.CredentialIssued)); n != 3 {
			t.Errorf("%d records stored", n)
		}
		intact(t, f)
	})
}

// The queue is bounded. Who finds it full waits, for as long as its ctx allows.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		var a, late answers
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		held(t, f, func() {
			a.append(t.Context(), trail, "held", audit.NoFence)
			synctest.Wait()
			for i := range 1024 {
				a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
			}
			synctest.Wait()
			late.append(ctx, trail, "late", audit.NoFence)
			synctest.Wait()
			if s := trail.Stats(); s.Queued != 1024 {
				t.Errorf("%d queued", s.Queued)
			}
			<-time.After(4 * time.Second)
		})
		a.wg.Wait()
		late.wg.Wait()
		if err := late.got["late"]; !errors.Is(err, context.DeadlineExceeded) || !reason.Is(err, reason.AuditUnavailable) {
			t.Errorf("late: %v", err)
		}
		for id, err := range a.got {
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		intact(t, f)
	})
}

func TestClose(t *testing.T) {
	t.Run("stores what is queued", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			trail := open(t, f, audit.Options{})
			var a answers
			closed := make(chan error, 1)
			held(t, f, func() {
				for i := range 600 {
					a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
				}
				synctest.Wait()
				go func() { closed <- trail.Close(t.Context()) }()
				synctest.Wait()
				if _, err := trail.Append(t.Context(), issued("late"), audit.NoFence); !reason.Is(err, reason.AuditUnavailable) {
					t.Errorf("Append = %v", err)
				}
			})
			if err := <-closed; err != nil {
				t.Errorf("Close = %v", err)
			}
			a.wg.Wait()
			for id, err := range a.got {
				if err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
			if err := trail.Healthy(); !reason.Is(err, reason.AuditUnavailable) {
				t.Errorf("Healthy = %v", err)
			}
			if err := trail.Close(t.Context()); err != nil {
				t.Errorf("Close again = %v", err)
			}
			intact(t, f)
		})
	})
	t.Run("gives up at its deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			trail := open(t, f, audit.Options{})
			f.set(func(f *fake) { f.hang = true })
			var a answers
			for i := range 600 {
				a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := trail.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close = %v", err)
			}
			a.wg.Wait()
			for id, err := range a.got {
				if !reason.Is(err, reason.AuditUnavailable) {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	})
	t.Run("races with callers", func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		var a answers
		for i := range 200 {
			a.append(t.Context(), trail, fmt.Sprint(i), audit.NoFence)
		}
		closeTrail(t, trail)
		a.wg.Wait()
		stored := map[string]bool{}
		for _, r := range f.stored() {
			stored[r.CredentialID] = true
		}
		for id, err := range a.got {
			if err != nil && !reason.Is(err, reason.AuditUnavailable) || err == nil && !stored[id] {
				t.Errorf("%s: %v, stored %v", id, err, stored[id])
			}
		}
		intact(t, f)
	})
}

// A writer notes the others when it begins and each day.
func TestCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		one := open(t, f, audit.Options{})
		two := open(t, f, audit.Options{})
		add(t, one, "1", "2")
		<-time.After(25 * time.Hour)
		synctest.Wait()
		noted := map[string][]string{}
		for _, r := range f.stored() {
			if r.Event == string(audit.AuditCheckpoint) {
				for key, value := range r.Detail {
					number, hash, _ := strings.Cut(value, " ")
					if at := slices.IndexFunc(f.stored(), func(o storage.AuditRecord) bool { return o.Hash == hash }); at < 0 ||
						key != "head."+f.stored()[at].Writer || number != fmt.Sprint(f.stored()[at].Sequence) {
						t.Errorf("%s notes %s %s", r.Writer, key, value)
					}
					noted[r.Writer] = append(noted[r.Writer], number)
				}
			}
		}
		// Each day's checkpoints are made at the same moment here, so that one
		// of the writers may see the other's new one.
		if first := noted[two.Writer()][0]; first != "1" || len(noted[two.Writer()]) != 2 || len(noted[one.Writer()]) != 1 {
			t.Errorf("noted %v", noted)
		}
		intact(t, f)
	})
}

// Whatever storage does, each record that was answered with nil is in the
// chain, once, in its place, and the chain verifies.
func TestHistory(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, 11))) })
		})
	}
}

func history(t *testing.T, r *rand.Rand) {
	f := newFake()
	trail := open(t, f, audit.Options{})
	var a answers
	for i := range 400 {
		switch r.IntN(10) {
		case 0:
			f.set(func(f *fake) { f.away = storage.ErrUnavailable })
		case 1:
			f.set(func(f *fake) { f.lost = storage.ErrUnavailable })
		case 2, 3:
			f.set(func(f *fake) { f.away, f.lost = nil, nil })
		case 4:
			<-time.After(time.Duration(r.IntN(3000)) * time.Millisecond)
		case 5:
			f.set(func(f *fake) { f.feed++ })
		case 6:
			// What cannot be trimmed now is trimmed later.
			_, _ = trail.Trim(t.Context(), time.Now().Add(-time.Hour))
		default:
			a.append(t.Context(), trail, fmt.Sprint(i), f.feed-int64(r.IntN(2)))
		}
	}
	f.set(func(f *fake) { f.away, f.lost = nil, nil })
	a.wg.Wait()
	seen := map[string]int{}
	for _, r := range f.stored() {
		seen[r.CredentialID]++
	}
	for id, err := range a.got {
		switch {
		case err == nil && seen[id] != 1, seen[id] > 1, errors.Is(err, audit.ErrStale) && seen[id] > 0:
			t.Errorf("%s: %v, stored %d times", id, err, seen[id])
		}
	}
	intact(t, f)
}
