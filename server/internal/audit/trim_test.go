package audit_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// A trimmed trail holds what is younger, verifies, says that it was trimmed,
// and goes on.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		dead := open(t, f, audit.Options{})
		add(t, dead, "d1", "d2")
		closeTrail(t, dead)
		trail := open(t, f, audit.Options{})
		add(t, trail, "o1", "o2")
		<-time.After(time.Hour)
		young := time.Now()
		add(t, trail, "y1")
		old := f.stored()

		done, err := trail.Trim(t.Context(), young)
		if err != nil || done != (audit.Trimmed{Chains: 2, Records: 6}) {
			t.Fatalf("Trim = %+v, %v", done, err)
		}
		var left []string
		for _, r := range f.stored() {
			left = append(left, r.Event+r.CredentialID)
		}
		if want := []string{"credential.issuedy1", "audit.trimmed", "audit.trimmed"}; !slices.Equal(left, want) {
			t.Errorf("left %q", left)
		}
		said := f.stored()[1].Detail
		want := map[string]string{
			"writer": dead.Writer(), "first": "1", "last": "3", "hash": old[2].Hash, "before": young.UTC().Format(time.RFC3339),
		}
		if !maps.Equal(said, want) {
			t.Errorf("said %v, want %v", said, want)
		}
		report := verify(t, f)
		if !report.Intact() || report.Chains[0].First != 4 || report.Chains[0].Last != 3 || report.Chains[1].First != 4 {
			t.Errorf("report %+v", report)
		}
		// Nothing more is to be done, and nothing more is said.
		if done, err = trail.Trim(t.Context(), young); err != nil || done != (audit.Trimmed{}) || len(f.stored()) != 3 {
			t.Errorf("Trim again = %+v, %v; %d records", done, err, len(f.stored()))
		}
		add(t, trail, "y2")
		intact(t, f)
	})
}

// What is left after a trim is protected as before.
func TestTrimmedTrailIsProtected(t *testing.T) {
	trimmed := func(t *testing.T) (*fake, string) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		add(t, trail, "1", "2", "3")
		<-time.After(time.Hour)
		border := time.Now()
		add(t, trail, "4", "5", "6")
		if _, err := trail.Trim(t.Context(), border); err != nil {
			t.Fatal(err)
		}
		closeTrail(t, trail)
		intact(t, f)
		return f, trail.Writer()
	}
	for name, c := range map[string]struct {
		tamper func(f *fake, writer string)
		want   audit.FaultKind
	}{
		"more removed": {func(f *fake, w string) { f.records = slices.Delete(f.records, f.find(w, 5), f.find(w, 5)+1) }, audit.FaultMissing},
		"more removed, head moved": {func(f *fake, w string) {
			f.records = slices.Delete(f.records, f.find(w, 5), f.find(w, 5)+1)
			h := f.heads[w]
			h.First, h.FirstPrevHash = 6, f.records[f.find(w, 6)].PrevHash
			f.heads[w] = h
		}, audit.FaultHeadForged},
		"the front's hash changed": {func(f *fake, w string) {
			h := f.heads[w]
			h.FirstPrevHash = strings.Repeat("0", 64)
			f.heads[w] = h
		}, audit.FaultHeadForged},
		"the first exchanged": {func(f *fake, w string) {
			r := &f.records[f.find(w, 5)]
			r.PrevHash = strings.Repeat("0", 64)
			r.Hash = audit.Hash(*r)
		}, audit.FaultDisplaced},
		"an old record put back": {func(f *fake, w string) {
			r := f.records[f.find(w, 5)]
			r.Sequence = 4
			f.records = append(f.records, r)
		}, audit.FaultLeftover},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, writer := trimmed(t)
				c.tamper(f, writer)
				faults := verify(t, f).Chains[0].Faults
				if len(faults) == 0 || faults[0].Kind != c.want {
					t.Errorf("faults %v, want %s", faults, c.want)
				}
			})
		})
	}
}

// Retention does not destroy evidence: a chain with a fault in its old part
// stays as it is, the others are trimmed.
func TestTrimKeepsEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func(*scene)
		says   audit.FaultKind
	}{
		"altered":   {func(s *scene) { s.at(5).Login = "eve" }, audit.FaultAltered},
		"removed":   {func(s *scene) { s.remove(s.older, func(n int64) bool { return n == 5 }) }, audit.FaultMissing},
		"truncated": {func(s *scene) { s.remove(s.older, func(n int64) bool { return n > 5 }) }, audit.FaultTruncated},
		"leftover":  {func(s *scene) { r := *s.at(1); r.Sequence = -3; s.records = append(s.records, r) }, audit.FaultLeftover},
		"rewritten": {func(s *scene) { s.at(5).Login = "eve"; s.rehash(5) }, audit.FaultRewritten},
		"forged":    {func(s *scene) { s.editHead(s.older, func(h *storage.AuditHead) { h.Seal = nil }) }, audit.FaultHeadForged},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				<-time.After(time.Hour)
				c.tamper(&s)
				before := len(s.stored())
				trail := open(t, s, audit.Options{})
				done, err := trail.Trim(t.Context(), time.Now().Add(-time.Minute))
				if err == nil || !strings.Contains(err.Error(), s.older) || !strings.Contains(err.Error(), string(c.says)) {
					t.Errorf("Trim = %v", err)
				}
				if done.Chains != 1 || done.Records != 6 || len(s.stored()) != before-6+2 {
					t.Errorf("trimmed %+v, %d records left of %d", done, len(s.stored()), before)
				}
				faults := verify(t, s).Chains[0].Faults
				if len(faults) == 0 || faults[0].Kind != c.says {
					t.Errorf("faults %v", faults)
				}
			})
		})
	}
}

// A long front goes in steps, between which commits have their turn, and after
// each of which the trail verifies.
func TestTrimInSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		fill(t, trail, 0, 3500)
		<-time.After(time.Hour)
		done, err := trail.Trim(t.Context(), time.Now())
		if err != nil || done.Records != 3501 {
			t.Fatalf("Trim = %+v, %v", done, err)
		}
		if !slices.Equal(f.trims, []int64{1000, 1000, 1000, 501}) {
			t.Errorf("steps of %v", f.trims)
		}
		intact(t, f)
	})
}

// A trim whose answer was lost leaves a trail that verifies and goes on.
func TestTrimInDoubt(t *testing.T) {
	for name, fault := range map[string]func(*fake, error){
		"took effect": func(f *fake, err error) { f.lost = err },
		"did not":     func(f *fake, err error) { f.trimOnly = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				trail := open(t, f, audit.Options{})
				writer := trail.Writer()
				add(t, trail, "1", "2")
				<-time.After(time.Hour)
				f.set(func(f *fake) { fault(f, storage.ErrUnavailable) })
				if _, err := trail.Trim(t.Context(), time.Now()); err == nil {
					t.Error("no error")
				}
				f.set(func(f *fake) { fault(f, nil) })
				<-time.After(time.Minute)
				add(t, trail, "3")
				intact(t, f)
				if trail.Writer() != writer {
					t.Error("another chain was begun")
				}
				if _, err := trail.Trim(t.Context(), time.Now().Add(-time.Minute)); err != nil {
					t.Errorf("Trim again: %v", err)
				}
				intact(t, f)
			})
		})
	}
}

// Heads sealed with an older key are checked with it and sealed anew.
func TestTrimWithOlderKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		<-time.After(time.Hour)
		trail, err := audit.Open(t.Context(), s, otherKey, audit.Options{OlderKeys: []secret.String{key}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeTrail(t, trail)
		if done, err := trail.Trim(t.Context(), time.Now()); err != nil || done.Records != 17 {
			t.Errorf("Trim = %+v, %v", done, err)
		}
		if report, err := audit.Verify(t.Context(), s, otherKey); err != nil || !report.Intact() {
			t.Errorf("Verify = %+v, %v", report, err)
		}
	})
}

// Replicas trim at the same time while both write.
func TestReplicasTrim(t *testing.T) {
	f := newFake()
	trails := []*audit.Trail{open(t, f, audit.Options{}), open(t, f, audit.Options{})}
	var group sync.WaitGroup
	for _, trail := range trails {
		group.Go(func() {
			for i := range 200 {
				add(t, trail, fmt.Sprint(i))
			}
		})
		group.Go(func() {
			for range 50 {
				if _, err := trail.Trim(t.Context(), time.Now()); err != nil {
					t.Errorf("Trim: %v", err)
				}
			}
		})
	}
	group.Wait()
	intact(t, f)
	for _, trail := range trails {
		if err := trail.Healthy(); err != nil {
			t.Errorf("Healthy = %v", err)
		}
	}
	if n := len(verify(t, f).Chains); n != 2 {
		t.Errorf("%d chains", n)
	}
}
