package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// trimStep is how many records one transaction removes: commits of new ones
// wait for it.
const trimStep = 1000

// Trimmed is what a Trim removed.
type Trimmed struct {
	// Chains of which something was removed, and how many records in all.
	Chains, Records int64
}

// Trim removes the front of each chain as far as its records are older than
// the moment. What is left still verifies: the head says, under its seal, where
// the chain begins now and after which hash.
//
// Only what verifies is removed, so that retention never destroys the evidence
// of a change: a chain with a fault in its old part stays whole, and the error
// names it, beside those of other chains. Before a chain is trimmed, an
// audit.trimmed record says so. Chains to which another broker adds meanwhile
// are left to that one. Replicas may trim at the same time.
func (t *Trail) Trim(ctx context.Context, before time.Time) (Trimmed, error) {
	heads, err := t.store.AuditHeads(ctx)
	if err != nil {
		return Trimmed{}, fmt.Errorf("trim the audit trail: read its heads: %w", err)
	}
	var done Trimmed
	var faults []error
	for _, head := range heads {
		n, err := t.trimChain(ctx, head, before)
		if n > 0 {
			done.Chains++
			done.Records += n
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("trim the audit chain of %s: %w", head.Writer, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return done, errors.Join(faults...)
}

// trimChain removes the old front of one chain.
func (t *Trail) trimChain(ctx context.Context, head storage.AuditHead, before time.Time) (removed int64, err error) {
	if head.First > head.Sequence {
		return 0, nil
	}
	if !t.seals.sealed(head) {
		return 0, fmt.Errorf("%s: the seal does not fit the head; verify the trail", FaultHeadForged)
	}
	cuts, err := t.old(ctx, head, before)
	if err != nil {
		// Another replica may have trimmed the chain while it was read.
		if now, lookErr := t.store.AuditHeads(ctx); lookErr == nil {
			if moved, found := headOf(now, head.Writer); found && moved.First > head.First && t.seals.sealed(moved) {
				return 0, nil
			}
		}
		return 0, err
	}
	if len(cuts) == 0 {
		return 0, nil
	}
	last := cuts[len(cuts)-1]
	_, err = t.Append(ctx, storage.AuditRecord{Event: string(AuditTrimmed), Actor: broker, Detail: map[string]string{
		"writer": head.Writer, "first": strconv.FormatInt(head.First, 10),
		"last": strconv.FormatInt(last.first-1, 10), "hash": last.prev, "before": before.UTC().Format(time.RFC3339),
	}}, NoFence)
	if err != nil {
		return 0, err
	}
	for _, cut := range cuts {
		switch err := t.cut(ctx, head, cut); {
		case errors.Is(err, storage.ErrConflict):
			return removed, nil // it moves, or another replica trims it
		case err != nil:
			return removed, err
		}
		removed += cut.first - head.First
		head.First, head.FirstPrevHash = cut.first, cut.prev
	}
	return removed, nil
}

// place is where a chain can begin: the first record kept, and the hash of the
// one before it.
type place struct {
	first int64
	prev  string
}

// old verifies the chain as far as it is older than the moment, and gives the
// places up to which it can be cut, a step apart.
func (t *Trail) old(ctx context.Context, head storage.AuditHead, before time.Time) (cuts []place, err error) {
	w := walk{next: head.First, prev: head.FirstPrevHash}
	cut := head.First
	// From the very beginning, so that a leftover is seen.
	for from := int64(math.MinInt64); w.next <= head.Sequence; from = w.next {
		page, err := t.store.AuditChain(ctx, head.Writer, from, trimStep)
		if err != nil {
			return nil, fmt.Errorf("read it: %w", err)
		}
		if len(page) == 0 {
			return nil, fmt.Errorf("%s at %d; verify the trail", FaultTruncated, w.next)
		}
		fault, more := w.pass(page, head.Sequence, before)
		if fault != nil {
			return nil, fmt.Errorf("%s at %d: %s; verify the trail", fault.Kind, fault.Sequence, fault.Text)
		}
		if w.next > cut {
			cut = w.next
			cuts = append(cuts, place{w.next, w.prev})
		}
		if !more {
			break
		}
	}
	if w.next > head.Sequence && w.prev != head.Hash {
		return nil, fmt.Errorf("%s at %d; verify the trail", FaultRewritten, head.Sequence)
	}
	return cuts, nil
}

// pass steps over the records of a page that are old enough, and reports
// whether all of them were.
func (w *walk) pass(page []storage.AuditRecord, last int64, before time.Time) (fault *Fault, more bool) {
	for _, r := range page {
		if r.Sequence > last || !r.Time.Before(before) {
			return nil, false
		}
		if fault := w.step(r); fault != nil {
			return fault, false
		}
	}
	return nil, true
}

// cut lets the chain begin at the place. The trail's own chain is cut between
// commits, and its memory follows.
func (t *Trail) cut(ctx context.Context, head storage.AuditHead, at place) error {
	if !t.acquire(ctx) {
		return context.Cause(ctx)
	}
	defer t.release()
	own := head.Writer == t.chain.head.Writer
	if own {
		if t.chain.doubt {
			return fmt.Errorf("%w: the chain is in doubt", storage.ErrConflict)
		}
		head = t.chain.head
	}
	head.First, head.FirstPrevHash = at.first, at.prev
	head = t.seals.seal(head)
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	err := t.store.TrimAudit(ctx, head)
	if own && err != nil {
		t.chain.doubt = true
	}
	if own && err == nil {
		t.chain.head = head
	}
	return err
}
