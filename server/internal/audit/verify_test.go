package audit_test

import (
	"context"
	"errors"
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

// scene is a trail of two chains: the older one has ten records of credentials
// after its checkpoint, the newer one notes it in its own and has five.
type scene struct {
	*fake
	older, newer string
}

func newScene(t testing.TB) scene {
	f := newFake()
	one := open(t, f, audit.Options{})
	for i := range 10 {
		add(t, one, fmt.Sprint("old", i))
	}
	closeTrail(t, one)
	two := open(t, f, audit.Options{})
	for i := range 5 {
		add(t, two, fmt.Sprint("new", i))
	}
	closeTrail(t, two)
	return scene{f, one.Writer(), two.Writer()}
}

// at points to a stored record of the older chain.
func (s scene) at(sequence int64) *storage.AuditRecord { return &s.records[s.find(s.older, sequence)] }

func (s scene) remove(writer string, gone func(sequence int64) bool) {
	s.records = slices.DeleteFunc(s.records, func(r storage.AuditRecord) bool { return r.Writer == writer && gone(r.Sequence) })
}

func (s scene) editHead(writer string, edit func(*storage.AuditHead)) {
	h := s.heads[writer]
	edit(&h)
	s.heads[writer] = h
}

// rehash gives the older chain from a record on the hashes that fit, as
// whoever knows the format can.
func (s scene) rehash(from int64) {
	prev := s.at(from - 1).Hash
	for n := from; s.find(s.older, n) >= 0; n++ {
		r := s.at(n)
		r.PrevHash = prev
		r.Hash = audit.Hash(*r)
		prev = r.Hash
	}
}

func TestVerifyFindsTampering(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func(*scene)
		want   audit.FaultKind
		at     int64
	}{
		"nothing": {func(*scene) {}, "", 0},

		"record altered":          {func(s *scene) { s.at(5).Login = "eve" }, audit.FaultAltered, 5},
		"time altered":            {func(s *scene) { s.at(5).Time = s.at(5).Time.Add(time.Second) }, audit.FaultAltered, 5},
		"detail altered":          {func(s *scene) { s.at(5).Detail["a"] = "2" }, audit.FaultAltered, 5},
		"first record altered":    {func(s *scene) { s.at(1).Detail = map[string]string{"x": "y"} }, audit.FaultAltered, 1},
		"last record altered":     {func(s *scene) { s.at(11).Login = "eve" }, audit.FaultAltered, 11},
		"hash altered":            {func(s *scene) { s.at(5).Hash = strings.Repeat("0", 64) }, audit.FaultAltered, 5},
		"altered, hash made anew": {func(s *scene) { s.at(5).Login = "eve"; s.at(5).Hash = audit.Hash(*s.at(5)) }, audit.FaultDisplaced, 6},
		"altered, all hashes made anew": {func(s *scene) {
			s.at(5).Login = "eve"
			s.rehash(5)
		}, audit.FaultRewritten, 11},
		"altered, all hashes and the head made anew": {func(s *scene) {
			s.at(5).Login = "eve"
			s.rehash(5)
			s.editHead(s.older, func(h *storage.AuditHead) { h.Hash = s.at(11).Hash })
		}, audit.FaultHeadForged, 11},

		"record removed":  {func(s *scene) { s.remove(s.older, func(n int64) bool { return n == 5 }) }, audit.FaultMissing, 5},
		"first removed":   {func(s *scene) { s.remove(s.older, func(n int64) bool { return n == 1 }) }, audit.FaultMissing, 1},
		"several removed": {func(s *scene) { s.remove(s.older, func(n int64) bool { return n >= 4 && n <= 8 }) }, audit.FaultMissing, 4},
		"record removed, the rest moved up": {func(s *scene) {
			s.remove(s.older, func(n int64) bool { return n == 5 })
			for n := int64(6); n <= 11; n++ {
				s.at(n).Sequence--
			}
			s.rehash(5)
		}, audit.FaultTruncated, 11},

		"two reordered": {func(s *scene) { s.at(5).Sequence, s.at(6).Sequence = 6, 5 }, audit.FaultAltered, 5},
		"two reordered, hashes made anew": {func(s *scene) {
			a, b := s.at(5), s.at(6)
			a.Sequence, b.Sequence = 6, 5
			s.rehash(5)
		}, audit.FaultRewritten, 11},

		"truncated":           {func(s *scene) { s.remove(s.older, func(n int64) bool { return n > 7 }) }, audit.FaultTruncated, 8},
		"all records gone":    {func(s *scene) { s.remove(s.older, func(int64) bool { return true }) }, audit.FaultTruncated, 1},
		"last record gone":    {func(s *scene) { s.remove(s.older, func(n int64) bool { return n == 11 }) }, audit.FaultTruncated, 11},
		"head beyond the end": {func(s *scene) { s.editHead(s.older, func(h *storage.AuditHead) { h.Sequence = 20 }) }, audit.FaultHeadForged, 20},
		"truncated, head made anew": {func(s *scene) {
			s.remove(s.older, func(n int64) bool { return n > 7 })
			s.editHead(s.older, func(h *storage.AuditHead) { h.Sequence, h.Hash = 7, s.at(7).Hash })
		}, audit.FaultHeadForged, 7},

		"record duplicated": {func(s *scene) { s.records = append(s.records, *s.at(5)) }, audit.FaultDuplicated, 5},
		"record duplicated at the end": {func(s *scene) {
			again := *s.at(5)
			again.Sequence = 12
			s.records = append(s.records, again)
		}, audit.FaultExcess, 12},
		"record added at the end": {func(s *scene) {
			more := *s.at(11)
			more.Sequence, more.PrevHash = 12, more.Hash
			more.Hash = audit.Hash(more)
			s.records = append(s.records, more)
		}, audit.FaultExcess, 12},
		"record added before the first": {func(s *scene) {
			less := *s.at(1)
			less.Sequence = 0
			less.Hash = audit.Hash(less)
			s.records = append(s.records, less)
		}, audit.FaultLeftover, 0},
		"record of the other chain put in": {func(s *scene) {
			other := s.records[s.find(s.newer, 5)]
			other.Writer = s.older
			*s.at(5) = other
		}, audit.FaultAltered, 5},

		"seal forged":          {func(s *scene) { s.editHead(s.older, func(h *storage.AuditHead) { h.Seal[0] ^= 1 }) }, audit.FaultHeadForged, 11},
		"seal removed":         {func(s *scene) { s.editHead(s.older, func(h *storage.AuditHead) { h.Seal = nil }) }, audit.FaultHeadForged, 11},
		"seal of another head": {func(s *scene) { s.editHead(s.older, func(h *storage.AuditHead) { h.Seal = s.heads[s.newer].Seal }) }, audit.FaultHeadForged, 11},
		"head removed":         {func(s *scene) { delete(s.heads, s.older) }, audit.FaultHeadMissing, 1},
		"front removed, head moved": {func(s *scene) {
			s.remove(s.older, func(n int64) bool { return n < 5 })
			s.editHead(s.older, func(h *storage.AuditHead) { h.First, h.FirstPrevHash = 5, s.at(5).PrevHash })
		}, audit.FaultHeadForged, 11},
		"chain removed with its head": {func(s *scene) {
			s.remove(s.older, func(int64) bool { return true })
			delete(s.heads, s.older)
		}, audit.FaultChainMissing, 11},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.tamper(&s)
			report := verify(t, s)
			if got := report.Intact(); got != (c.want == "") {
				t.Errorf("intact: %v", got)
			}
			if report.Chains[0].Writer != s.older || len(report.Chains) != 2 {
				t.Fatalf("chains %+v", report.Chains)
			}
			if faults := report.Chains[1].Faults; len(faults) > 0 {
				t.Errorf("the other chain: %v", faults)
			}
			faults := report.Chains[0].Faults
			if c.want == "" {
				if len(faults) > 0 || report.Records() != 17 || report.Chains[0].First != 1 || report.Chains[0].Last != 11 {
					t.Errorf("report %+v", report)
				}
				return
			}
			if len(faults) == 0 || faults[0].Kind != c.want || faults[0].Sequence != c.at {
				t.Errorf("faults %v, want %s at %d", faults, c.want, c.at)
			}
		})
	}
}

// An older head has a good seal. Putting it back, and removing what came after
// it, contradicts what others have noted since.
func TestVerifyFindsAnOlderHead(t *testing.T) {
	f := newFake()
	one := open(t, f, audit.Options{})
	add(t, one, "1", "2")
	older := f.heads[one.Writer()]
	add(t, one, "3", "4")
	rollBack := func() {
		f.heads[one.Writer()] = older
		f.records = slices.DeleteFunc(f.records, func(r storage.AuditRecord) bool {
			return r.Writer == one.Writer() && r.Sequence > older.Sequence
		})
	}
	saved, savedHeads := slices.Clone(f.records), maps.Clone(f.heads)
	rollBack()
	// Nothing else remembers: the stored trail alone is whole. This is what
	// the documentation says that it cannot see.
	intact(t, f)
	// The broker that wrote it does.
	report, err := one.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rolledBack := func(report audit.Report) {
		t.Helper()
		faults := report.Chains[0].Faults
		if len(faults) != 1 || faults[0].Kind != audit.FaultRolledBack || faults[0].Sequence != 5 {
			t.Errorf("faults %v", faults)
		}
	}
	rolledBack(report)
	// And so does any broker that was started since.
	f.records, f.heads = saved, savedHeads
	open(t, f, audit.Options{})
	intact(t, f)
	rollBack()
	rolledBack(verify(t, f))
}

// Storage is put back to an older state under a running broker: the broker
// begins another chain, whose checkpoint contradicts the old one.
func TestVerifyFindsARestoredStorage(t *testing.T) {
	f := newFake()
	one := open(t, f, audit.Options{})
	add(t, one, "1")
	records, heads := slices.Clone(f.records), maps.Clone(f.heads)
	add(t, one, "2")
	f.set(func(f *fake) { f.records, f.heads = records, heads })
	add(t, one, "another")
	report := verify(t, f)
	if len(report.Chains) != 2 || len(report.Chains[1].Faults) > 0 {
		t.Fatalf("report %+v", report)
	}
	if faults := report.Chains[0].Faults; len(faults) != 1 || faults[0].Kind != audit.FaultRolledBack || faults[0].Sequence != 3 {
		t.Errorf("faults %v", faults)
	}
}

func TestVerifyWithKeys(t *testing.T) {
	s := newScene(t)
	report, err := audit.Verify(t.Context(), s, otherKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Chains {
		if len(c.Faults) != 1 || c.Faults[0].Kind != audit.FaultHeadForged {
			t.Errorf("with another key: %v", c.Faults)
		}
	}
	if report, err = audit.Verify(t.Context(), s, otherKey, key); err != nil || !report.Intact() {
		t.Errorf("with the key among the older ones: %v, %v", report, err)
	}
	if _, err := audit.Verify(t.Context(), s, secret.New("short")); err == nil {
		t.Error("a short key was taken")
	}
	trail, err := audit.Open(t.Context(), s, otherKey, audit.Options{OlderKeys: []secret.String{key}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTrail(t, trail)
	if report, err = trail.Verify(t.Context()); err != nil || !report.Intact() || len(report.Chains) != 3 {
		t.Errorf("by a trail with a newer key: %+v, %v", report, err)
	}
}

func TestVerifyEmpty(t *testing.T) {
	if report := verify(t, newFake()); !report.Intact() || len(report.Chains) != 0 {
		t.Errorf("%+v", report)
	}
}

func TestVerifyCannotRead(t *testing.T) {
	s := newScene(t)
	s.away = storage.ErrUnavailable
	if _, err := audit.Verify(t.Context(), s, key); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Verify = %v", err)
	}
	s.away = nil
	ctx, cancel := context.WithCancel(t.Context())
	s.onChain = cancel
	if _, err := audit.Verify(ctx, s, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v", err)
	}
}

// A chain longer than a page is read whole, and a second record in the place of
// a page's last one is seen.
func TestVerifyLongChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		trail := open(t, f, audit.Options{})
		fill(t, trail, 0, 2500)
		report := verify(t, f)
		if !report.Intact() || report.Records() != 2501 {
			t.Fatalf("%d records, %+v", report.Records(), report)
		}
		for _, n := range []int64{1000, 1001, 1999, 2000} {
			f.set(func(f *fake) { f.records = append(f.records, f.records[f.find(trail.Writer(), n)]) })
			if c := verify(t, f).Chains[0]; len(c.Faults) != 1 || c.Faults[0].Kind != audit.FaultDuplicated || c.Faults[0].Sequence != n {
				t.Errorf("%d twice: %v", n, c.Faults)
			}
			f.set(func(f *fake) { f.records = f.records[:len(f.records)-1] })
		}
	})
}

// Brokers write, begin and trim while the trail is verified: no false alarm.
func TestVerifyWhileWriting(t *testing.T) {
	f := newFake()
	one, two := open(t, f, audit.Options{}), open(t, f, audit.Options{})
	add(t, one, "0")
	stop := make(chan struct{})
	var group sync.WaitGroup
	busy := func(work func(i int)) {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					work(i)
				}
			}
		})
	}
	busy(func(i int) { add(t, one, fmt.Sprint(i)) })
	busy(func(i int) { add(t, two, fmt.Sprint(i)) })
	busy(func(int) {
		for _, trail := range []*audit.Trail{one, two} {
			if _, err := trail.Trim(t.Context(), time.Now().Add(-5*time.Millisecond)); err != nil {
				t.Errorf("Trim: %v", err)
			}
		}
	})
	for range 5 {
		fresh := open(t, f, audit.Options{})
		for range 10 {
			report, err := fresh.Verify(t.Context())
			if err != nil {
				t.Error(err)
			}
			for _, c := range report.Chains {
				if len(c.Faults) > 0 {
					t.Errorf("chain %s: %v", c.Writer, c.Faults)
				}
			}
		}
		closeTrail(t, fresh)
	}
	close(stop)
	group.Wait()
	intact(t, f)
}
