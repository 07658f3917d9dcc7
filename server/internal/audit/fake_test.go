package audit_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/stokerd/stoker/server/internal/storage"
)

var _ storage.Audit = (*fake)(nil)

// fake keeps the trail in memory by the rules of storage.Audit. It can fail,
// hang, lose the answer to a commit, and be tampered with.
type fake struct {
	mu      sync.Mutex
	records []storage.AuditRecord
	heads   map[string]storage.AuditHead
	feed    int64

	// away fails every call, readOnly the writing ones. lost fails a commit
	// or trim after it took effect, trimOnly a trim before. hang lets calls wait for their context's end.
	away, readOnly, lost, trimOnly error
	hang                           bool
	// twice calls build once more, as a repeated transaction does.
	twice bool
	// gate, if set, holds each commit until it receives.
	gate     chan struct{}
	appended []int // the sizes of the batches
	calls    int
	trims    []int64 // how many records each trim removed
	onChain  func()  // runs before AuditChain answers
}

func newFake() *fake { return &fake{heads: map[string]storage.AuditHead{}} }

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// tried counts the calls.
func (f *fake) tried() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fake) serve(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	f.calls++
	hang, away := f.hang, f.away
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return away
}

func (f *fake) AppendAudit(ctx context.Context, build func(int64) (storage.AuditBatch, error)) error {
	if err := f.serve(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.twice {
		if _, err := build(f.feed + 1); err != nil {
			return err
		}
	}
	batch, err := build(f.feed)
	if err != nil || len(batch.Records) == 0 {
		return err
	}
	if f.readOnly != nil {
		return f.readOnly
	}
	if err := f.check(batch); err != nil {
		return err
	}
	for _, r := range batch.Records {
		f.records = append(f.records, copied(r))
	}
	f.heads[batch.Head.Writer] = batch.Head
	f.appended = append(f.appended, len(batch.Records))
	return f.lost
}

func (f *fake) check(b storage.AuditBatch) error {
	first, last := b.Records[0].Sequence, b.Records[len(b.Records)-1].Sequence
	if b.Head.Sequence != last {
		return fmt.Errorf("%w: the head is not the end", storage.ErrInvalid)
	}
	for i, r := range b.Records {
		if r.Writer != b.Head.Writer || r.Sequence != first+int64(i) {
			return fmt.Errorf("%w: no piece of a chain", storage.ErrInvalid)
		}
	}
	if f.find(b.Head.Writer, first) >= 0 {
		return storage.ErrConflict
	}
	if stored, ok := f.heads[b.Head.Writer]; ok && (stored.Sequence != first-1 || stored.First != b.Head.First) {
		return storage.ErrConflict
	}
	return nil
}

// find gives the index of a record, -1 where there is none.
func (f *fake) find(writer string, sequence int64) int {
	return slices.IndexFunc(f.records, func(r storage.AuditRecord) bool { return r.Writer == writer && r.Sequence == sequence })
}

func copied(r storage.AuditRecord) storage.AuditRecord {
	r.Detail = maps.Clone(r.Detail)
	return r
}

func (f *fake) ListAudit(ctx context.Context, _ storage.AuditFilter, after *storage.AuditCursor, limit int) ([]storage.AuditRecord, error) {
	order := func(a, b storage.AuditRecord) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Sequence, b.Sequence))
	}
	return f.query(ctx, order, limit, func(r storage.AuditRecord) bool {
		return after == nil || order(r, storage.AuditRecord{Time: after.Time, Writer: after.Writer, Sequence: after.Sequence}) > 0
	})
}

func (f *fake) AuditChain(ctx context.Context, writer string, from int64, limit int) ([]storage.AuditRecord, error) {
	f.mu.Lock()
	before := f.onChain
	f.mu.Unlock()
	if before != nil {
		before()
	}
	order := func(a, b storage.AuditRecord) int { return cmp.Compare(a.Sequence, b.Sequence) }
	return f.query(ctx, order, limit, func(r storage.AuditRecord) bool { return r.Writer == writer && r.Sequence >= from })
}

func (f *fake) query(ctx context.Context, order func(a, b storage.AuditRecord) int, limit int, want func(storage.AuditRecord) bool) ([]storage.AuditRecord, error) {
	if err := f.serve(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []storage.AuditRecord
	for _, r := range f.records {
		if want(r) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, order)
	found = found[:min(limit, len(found))]
	for i := range found {
		found[i] = copied(found[i])
	}
	return found, nil
}

func (f *fake) AuditHeads(ctx context.Context) ([]storage.AuditHead, error) {
	if err := f.serve(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	heads := slices.Collect(maps.Values(f.heads))
	slices.SortFunc(heads, func(a, b storage.AuditHead) int { return cmp.Compare(a.Writer, b.Writer) })
	return heads, nil
}

func (f *fake) FindIssue(context.Context, string) (storage.AuditRecord, error) {
	return storage.AuditRecord{}, storage.ErrNotFound // the trail never asks
}

func (f *fake) TrimAudit(ctx context.Context, head storage.AuditHead) error {
	if err := f.serve(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	stored, ok := f.heads[head.Writer]
	switch {
	case f.trimOnly != nil:
		return f.trimOnly
	case !ok:
		return storage.ErrNotFound
	case stored.Sequence != head.Sequence || stored.First > head.First:
		return storage.ErrConflict
	}
	n := len(f.records)
	f.records = slices.DeleteFunc(f.records, func(r storage.AuditRecord) bool {
		return r.Writer == head.Writer && r.Sequence < head.First
	})
	f.trims = append(f.trims, int64(n-len(f.records)))
	f.heads[head.Writer] = head
	return f.lost
}

// stored gives all records, by writer and sequence.
func (f *fake) stored() []storage.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := slices.Clone(f.records)
	slices.SortFunc(found, func(a, b storage.AuditRecord) int {
		return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Sequence, b.Sequence))
	})
	return found
}

// count says how many records of an event are stored.
func (f *fake) count(event string) (n int) {
	for _, r := range f.stored() {
		if r.Event == event {
			n++
		}
	}
	return n
}
