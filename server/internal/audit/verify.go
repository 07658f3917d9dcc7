package audit

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// verifyPage is how many records are read at once.
const verifyPage = 1000

// FaultKind names what is wrong with a chain.
type FaultKind string

// The faults. docs/audit.md lists them too; a test compares.
const (
	FaultAltered      FaultKind = "altered"
	FaultDisplaced    FaultKind = "displaced"
	FaultDuplicated   FaultKind = "duplicated"
	FaultMissing      FaultKind = "missing"
	FaultTruncated    FaultKind = "truncated"
	FaultExcess       FaultKind = "excess"
	FaultLeftover     FaultKind = "leftover"
	FaultRewritten    FaultKind = "rewritten"
	FaultHeadForged   FaultKind = "head_forged"
	FaultHeadMissing  FaultKind = "head_missing"
	FaultChainMissing FaultKind = "chain_missing"
	FaultRolledBack   FaultKind = "rolled_back"
)

// FaultRow says what a fault means.
type FaultRow struct {
	Fault FaultKind
	// Doc is one sentence.
	Doc string
}

// Faults lists every fault once, in the order of the documentation.
var Faults = []FaultRow{
	{FaultAltered, "The record does not have the hash that it carries: one of its fields was changed."},
	{FaultDisplaced, "The record has its hash, but does not follow the one before it: another stood here."},
	{FaultDuplicated, "The sequence stands in the chain more than once."},
	{FaultMissing, "No record has this sequence, and later ones are there."},
	{FaultTruncated, "No record has this sequence or a later one, but the head says that they were written."},
	{FaultExcess, "The record lies beyond the head, which never happens: record and head are stored together."},
	{FaultLeftover, "The record lies before the first one that the head says is kept."},
	{FaultRewritten, "The last record is not the one of the head: it, or the whole end of the chain, was written anew."},
	{FaultHeadForged, "The head's seal was not made with the broker's key: somebody else wrote it."},
	{FaultHeadMissing, "The chain has records and no head."},
	{FaultChainMissing, "A checkpoint, or a broker's memory, names the chain, and neither its head nor a record is there."},
	{FaultRolledBack, "The chain had a record, by a checkpoint or a broker's memory, that it does not have now: an older state was put back."},
}

// Fault is something wrong with a chain, at its first place.
type Fault struct {
	Kind FaultKind
	// Sequence is of the record that is wrong or not there; of a head, its
	// own.
	Sequence int64
	// Text says more, for people.
	Text string
}

// Chain is what was found of one writer's chain.
type Chain struct {
	Writer string
	// First and Last are the sequences between which the trail should hold
	// records, by the chain's head. First over Last: all were trimmed.
	First, Last int64
	// Records were read and found right.
	Records int64
	// Faults are the first wrong record, and what is wrong with the head or
	// with the chain as a whole; none: the chain is whole.
	Faults []Fault
}

// Report is the result of a verification.
type Report struct {
	// Chains are ordered by writer, which is the order of their beginnings.
	Chains []Chain
}

// Intact says whether nothing is wrong.
func (r Report) Intact() bool {
	return !slices.ContainsFunc(r.Chains, func(c Chain) bool { return len(c.Faults) > 0 })
}

// Records is how many were read and found right.
func (r Report) Records() (n int64) {
	for _, c := range r.Chains {
		n += c.Records
	}
	return n
}

// Verify reads the whole trail and reports whatever does not fit. Brokers may
// write and trim meanwhile. Seals may have been made with the key or an older
// one. An error says that the trail could not be read, not that it is wrong.
//
// What it cannot see, because everything left fits together: the newest chains
// removed with their heads, or the whole storage put back to an older state,
// where no later checkpoint and no running broker remembers them. The second
// sink does; see docs/audit.md.
func Verify(ctx context.Context, store storage.Audit, key secret.String, older ...secret.String) (Report, error) {
	seals, err := newSealer(key, older)
	if err != nil {
		return Report{}, err
	}
	return verify(ctx, store, seals, nil)
}

// Verify is the function of this name, and also compares the stored chain of
// this trail with what it remembers.
func (t *Trail) Verify(ctx context.Context) (Report, error) {
	head := t.state.head()
	return verify(ctx, t.store, t.seals, []link{{head.Writer, head.Sequence, head.Hash}})
}

// verifier collects what one verification finds.
type verifier struct {
	store  storage.Audit
	seals  sealer
	chains map[string]*Chain
	// links has, for each writer, the last record that others noted of it.
	links map[string]link
}

func verify(ctx context.Context, store storage.Audit, seals sealer, remembered []link) (Report, error) {
	v := &verifier{store: store, seals: seals, chains: map[string]*Chain{}, links: map[string]link{}}
	for _, l := range remembered {
		v.note(l)
	}
	heads, err := store.AuditHeads(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("read the heads of the audit trail: %w", err)
	}
	for _, head := range heads {
		if err := v.chain(ctx, head); err != nil {
			return Report{}, fmt.Errorf("verify the chain of %s: %w", head.Writer, err)
		}
	}
	if err := v.headless(ctx); err != nil {
		return Report{}, fmt.Errorf("verify that every chain has a head: %w", err)
	}
	if err := v.linked(ctx); err != nil {
		return Report{}, fmt.Errorf("verify what writers noted of each other: %w", err)
	}
	var report Report
	for _, c := range v.chains {
		report.Chains = append(report.Chains, *c)
	}
	slices.SortFunc(report.Chains, func(a, b Chain) int { return cmp.Compare(a.Writer, b.Writer) })
	return report, nil
}

func (v *verifier) note(l link) {
	if old, ok := v.links[l.writer]; !ok || l.sequence > old.sequence {
		v.links[l.writer] = l
	}
}

// get gives the result for a writer, which begins without faults.
func (v *verifier) get(writer string) *Chain {
	c, ok := v.chains[writer]
	if !ok {
		c = &Chain{Writer: writer, First: 1}
		v.chains[writer] = c
	}
	return c
}

func (c *Chain) fault(kind FaultKind, sequence int64, format string, args ...any) {
	c.Faults = append(c.Faults, Fault{kind, sequence, fmt.Sprintf(format, args...)})
}

// head reads a writer's head as it is now.
func (v *verifier) head(ctx context.Context, writer string) (storage.AuditHead, bool, error) {
	heads, err := v.store.AuditHeads(ctx)
	if err != nil {
		return storage.AuditHead{}, false, err
	}
	head, found := headOf(heads, writer)
	return head, found, nil
}

// chain verifies one chain up to its head. A chain that was trimmed while it
// was read is begun again where it begins now.
func (v *verifier) chain(ctx context.Context, head storage.AuditHead) error {
	for {
		c := &Chain{Writer: head.Writer, First: head.First, Last: head.Sequence}
		if !v.seals.sealed(head) {
			c.fault(FaultHeadForged, head.Sequence, "the seal does not fit the head")
		}
		w := walk{prev: head.FirstPrevHash, next: head.First}
		fault, err := v.follow(ctx, &w, head)
		if err != nil {
			return err
		}
		if fault != nil {
			now, found, err := v.head(ctx, head.Writer)
			if err != nil {
				return err
			}
			if found && now.First > head.First && now.First > fault.Sequence && v.seals.sealed(now) {
				head = now
				continue
			}
			c.Faults = append(c.Faults, *fault)
		}
		c.Records = w.records
		v.chains[head.Writer] = c
		for _, l := range w.links {
			v.note(l)
		}
		return nil
	}
}

// walk is a place in a chain: the sequence and previous hash that the next
// record must have.
type walk struct {
	next    int64
	prev    string
	records int64
	links   []link
}

// follow reads the chain up to the head, and gives the first fault.
func (v *verifier) follow(ctx context.Context, w *walk, head storage.AuditHead) (*Fault, error) {
	// From the very beginning: nothing may lie before the first record.
	from := int64(math.MinInt64)
	for {
		page, err := v.store.AuditChain(ctx, head.Writer, from, verifyPage)
		if err != nil {
			return nil, err
		}
		whole := len(page) < verifyPage
		if len(page) > 0 && w.records > 0 && page[0].Hash == w.prev {
			page = page[1:] // the last one of the page before
		}
		for _, r := range page {
			if w.next > head.Sequence && r.Sequence >= w.next {
				return v.beyond(ctx, w, head, &r)
			}
			if fault := w.step(r); fault != nil {
				return fault, nil
			}
		}
		if whole {
			return v.beyond(ctx, w, head, nil)
		}
		// Once more from the last one: a second record in its place must not
		// slip through between two pages.
		from = w.next - 1
	}
}

// step checks the next record.
func (w *walk) step(r storage.AuditRecord) *Fault {
	fault := func(kind FaultKind, sequence int64, format string, args ...any) *Fault {
		return &Fault{kind, sequence, fmt.Sprintf(format, args...)}
	}
	switch {
	case r.Sequence < w.next && w.records == 0:
		return fault(FaultLeftover, r.Sequence, "the head says that the chain begins at %d", w.next)
	case r.Sequence < w.next:
		return fault(FaultDuplicated, r.Sequence, "the sequence came before")
	case r.Sequence > w.next:
		return fault(FaultMissing, w.next, "the next record is %d", r.Sequence)
	case Hash(r) != r.Hash:
		return fault(FaultAltered, r.Sequence, "%s at %s: the hash over its fields is another", r.Event, r.Time.Format(lineTime))
	case r.PrevHash != w.prev:
		return fault(FaultDisplaced, r.Sequence, "%s at %s: the record before it has another hash", r.Event, r.Time.Format(lineTime))
	}
	w.next, w.prev = r.Sequence+1, r.Hash
	w.records++
	w.links = append(w.links, links(r)...)
	return nil
}

// beyond checks how the chain ends: with the head's record, and with no other
// after it unless the head has moved on too.
func (v *verifier) beyond(ctx context.Context, w *walk, head storage.AuditHead, after *storage.AuditRecord) (*Fault, error) {
	switch {
	case w.next <= head.Sequence:
		return &Fault{FaultTruncated, w.next, fmt.Sprintf("the head says that the chain ends at %d", head.Sequence)}, nil
	case w.prev != head.Hash:
		return &Fault{FaultRewritten, head.Sequence, "the head has another hash"}, nil
	case after == nil:
		return nil, nil
	}
	now, found, err := v.head(ctx, head.Writer)
	if err != nil {
		return nil, err
	}
	if found && now.Sequence >= after.Sequence && v.seals.sealed(now) {
		return nil, nil
	}
	return &Fault{FaultExcess, after.Sequence, fmt.Sprintf("the head says that the chain ends at %d", head.Sequence)}, nil
}

// headless looks through all records for those whose chain has no head.
func (v *verifier) headless(ctx context.Context) error {
	counts := map[string]int64{}
	first := map[string]int64{}
	var cursor *storage.AuditCursor
	for {
		page, err := v.store.ListAudit(ctx, storage.AuditFilter{}, cursor, verifyPage)
		if err != nil {
			return err
		}
		for _, r := range page {
			if _, ok := v.chains[r.Writer]; !ok {
				if at, seen := first[r.Writer]; !seen || r.Sequence < at {
					first[r.Writer] = r.Sequence
				}
				counts[r.Writer]++
			}
		}
		if len(page) < verifyPage {
			break
		}
		end := page[len(page)-1]
		cursor = &storage.AuditCursor{Time: end.Time, Writer: end.Writer, Sequence: end.Sequence}
	}
	for writer, n := range counts {
		// A writer that began while the trail was read has its head now.
		head, found, err := v.head(ctx, writer)
		if err != nil {
			return err
		}
		if found {
			if err := v.chain(ctx, head); err != nil {
				return err
			}
			continue
		}
		v.get(writer).fault(FaultHeadMissing, first[writer], "%d records have no head", n)
	}
	return nil
}

// linked compares the chains with what was noted of them elsewhere.
func (v *verifier) linked(ctx context.Context) error {
	// Chains have moved on while they were read, and checkpoints that were
	// read later may know it.
	heads, err := v.store.AuditHeads(ctx)
	if err != nil {
		return err
	}
	for writer, l := range v.links {
		head, found := headOf(heads, writer)
		c, seen := v.chains[writer]
		switch {
		case !found && !seen:
			v.get(writer).fault(FaultChainMissing, l.sequence, "it reached %d at least", l.sequence)
		case !found: // headless: reported
		case head.Sequence < l.sequence:
			v.get(writer).fault(FaultRolledBack, l.sequence, "the head is at %d", head.Sequence)
		case !seen || len(c.Faults) > 0:
			// It came while the others were read, or worse is known of it.
		default:
			if err := v.same(ctx, l, head); err != nil {
				return err
			}
		}
	}
	return nil
}

// same checks that the chain has the very record that was noted of it, unless
// it has been trimmed.
func (v *verifier) same(ctx context.Context, l link, head storage.AuditHead) error {
	hash := head.FirstPrevHash
	switch {
	case l.sequence < head.First-1:
		return nil
	case l.sequence >= head.First:
		page, err := v.store.AuditChain(ctx, l.writer, l.sequence, 1)
		if err != nil {
			return err
		}
		if len(page) == 0 || page[0].Sequence != l.sequence {
			// Trimmed since: a chain with a gap was reported above.
			return nil
		}
		hash = page[0].Hash
	}
	if hash != l.hash {
		v.get(l.writer).fault(FaultRolledBack, l.sequence, "another record was here")
	}
	return nil
}
