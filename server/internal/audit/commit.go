package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// maxConflicts is how often one batch is tried again because retention, in
// some replica, trimmed the chain between the look and the commit.
const maxConflicts = 5

// run is the committer: the only one who adds to the chain. It ends when the
// trail is closed and all that was queued is answered.
func (t *Trail) run() {
	defer close(t.ended)
	checkpoint := time.NewTicker(checkpointEvery)
	defer checkpoint.Stop()
	var wait backoff
	for {
		// While the trail fails it tries by itself, so that it recovers also
		// when nobody asks for anything because nothing works.
		var probe <-chan time.Time
		if t.state.failing() {
			probe = time.After(wait.next())
		} else {
			wait.reset()
		}
		select {
		case first := <-t.queue:
			t.serve(t.gather(first))
		case <-probe:
			t.serve(nil)
		case <-checkpoint.C:
			t.noteOthers()
		case <-t.closing:
			t.drain()
			return
		}
	}
}

// gather takes what is queued with the first, without waiting: while one batch
// is committed, the next collects.
//
// It lets others run for as long as that brings more: the callers whom the last
// batch has just answered, and on a busy machine whoever is about to come. A
// large batch costs each of its records less than a third of what a small one
// does. On a machine with nothing else to do it returns at once.
func (t *Trail) gather(first *request) []*request {
	batch := append(make([]*request, 0, maxBatch), first)
	for before := 0; len(batch) > before && len(batch) < maxBatch; {
		before = len(batch)
		runtime.Gosched()
		batch = t.queued(batch)
	}
	return batch
}

// queued adds what is queued to the batch.
func (t *Trail) queued(batch []*request) []*request {
	for len(batch) < maxBatch {
		select {
		case r := <-t.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

func (t *Trail) drain() {
	for {
		select {
		case first := <-t.queue:
			t.serve(t.gather(first))
		default:
			return
		}
	}
}

// serve commits one batch when it is the committer's turn.
func (t *Trail) serve(requests []*request) {
	if !t.acquire(t.ctx) { // Close gave up, and Trim still has the turn
		for _, r := range requests {
			r.answer <- unavailable(errClosed)
		}
		return
	}
	defer t.release()
	// Each request has its own answer; the trail remembers the outcome.
	_ = t.commit(t.ctx, requests)
}

// acquire takes the turn, or reports that ctx ended first.
func (t *Trail) acquire(ctx context.Context) bool {
	select {
	case <-t.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Trail) release() { t.turn <- struct{}{} }

// noteOthers stores a checkpoint. If where the others stand cannot be read
// because storage is away, the next day's will do.
func (t *Trail) noteOthers() {
	ctx, cancel := context.WithTimeout(t.ctx, commitTimeout)
	defer cancel()
	heads, err := t.store.AuditHeads(ctx)
	if err != nil {
		t.log.Warn("no audit checkpoint today: the heads cannot be read", "error", err)
		return
	}
	if !t.acquire(t.ctx) {
		return
	}
	defer t.release()
	checkpoint := checkpointOf(t.chain.head.Writer, heads, t.seals)
	t.chain.checkpoint = &checkpoint
	// The trail remembers the outcome, for Healthy and the next attempt.
	_ = t.commit(t.ctx, nil)
}

// commit makes the requests durable, with what the trail has to say itself,
// and answers them. The caller has the turn.
func (t *Trail) commit(ctx context.Context, requests []*request) error {
	begun := time.Now()
	t.state.begin(begun)
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	d, err := t.put(ctx, requests)
	began, ended := t.state.end(outcome{len(d.batch.Records), d.stale, len(requests), err}, time.Now())
	if began {
		t.log.Error("the audit trail cannot be written; nothing is issued", "error", err)
	}
	if ended {
		t.log.Info("the audit trail is written again")
	}
	t.committed(Commit{Took: time.Since(begun), Records: len(d.batch.Records), Stale: d.stale, Err: err})
	if err == nil {
		t.take(d, requests)
		return nil
	}
	t.chain.doubt = true
	for _, r := range requests {
		r.answer <- unavailable(err)
	}
	return unavailable(err)
}

// take moves the chain to what is durable now, and answers.
func (t *Trail) take(d draft, requests []*request) {
	if len(d.batch.Records) > 0 {
		t.chain.head, t.chain.time, t.chain.checkpoint = d.batch.Head, d.time, nil
		t.state.moved(t.chain.head)
		if t.sink != nil {
			t.sink.offer(d.batch.Records)
		}
	}
	for i, r := range requests {
		if d.places[i] < 0 {
			r.answer <- ErrStale
			continue
		}
		r.record = d.batch.Records[d.places[i]]
		if t.sink != nil { // which has the stored record, and its detail with it
			r.record.Detail = maps.Clone(r.record.Detail)
		}
		r.answer <- nil
	}
}

// put stores one batch.
func (t *Trail) put(ctx context.Context, requests []*request) (d draft, err error) {
	for range maxConflicts {
		if err := t.settle(ctx); err != nil {
			return draft{}, err
		}
		own := t.own()
		err = t.store.AppendAudit(ctx, func(feed int64) (storage.AuditBatch, error) {
			d = t.chain.draft(t.seals, feed, own, requests, time.Now())
			return d.batch, nil
		})
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
		t.chain.doubt = true
	}
	return draft{}, fmt.Errorf("append to the audit trail: %w", err)
}

// own are the trail's records that are due.
func (t *Trail) own() []storage.AuditRecord {
	var own []storage.AuditRecord
	if t.chain.checkpoint != nil {
		own = append(own, bound(*t.chain.checkpoint))
	}
	if since, failed, failing := t.state.outage(); failing {
		own = append(own, storage.AuditRecord{Event: string(AuditResumed), Actor: broker, Detail: map[string]string{
			"since": since.UTC().Format(time.RFC3339Nano), "failed": strconv.FormatInt(failed, 10),
		}})
	}
	return own
}

// settle finds out where the stored chain stands, if that is in doubt.
//
// Only this trail adds to its chain. So a sealed head that is further on is a
// commit whose answer was lost, and one that begins later was trimmed: both
// are gone on from. Anything else means that storage lost or exchanged what
// had been durable. That chain cannot be continued without covering it up: the
// trail begins another, whose first record says where the lost one stood, so
// that Verify shows what is missing.
func (t *Trail) settle(ctx context.Context) error {
	if !t.chain.doubt {
		return nil
	}
	heads, err := t.store.AuditHeads(ctx)
	if err != nil {
		return fmt.Errorf("read the heads of the audit trail: %w", err)
	}
	ours := t.chain.head
	stored, found := headOf(heads, ours.Writer)
	switch {
	case !found && ours.Sequence == 0:
	case found && t.seals.sealed(stored) && (stored.Sequence > ours.Sequence ||
		stored.Sequence == ours.Sequence && stored.Hash == ours.Hash):
		t.chain.head = stored
		t.state.moved(stored)
	default:
		others := append(slices.DeleteFunc(heads, func(h storage.AuditHead) bool { return h.Writer == ours.Writer }), ours)
		after := ""
		if t.sink != nil {
			after = ours.Writer
		}
		fresh, err := newChain(others, t.seals, after)
		if err != nil {
			return err
		}
		t.log.Error("storage lost the end of the audit chain; beginning another: run a verification",
			"writer", ours.Writer, "sequence", ours.Sequence, "next_writer", fresh.head.Writer)
		t.chain = fresh
	}
	t.chain.doubt = false
	return nil
}

func headOf(heads []storage.AuditHead, writer string) (storage.AuditHead, bool) {
	i := slices.IndexFunc(heads, func(h storage.AuditHead) bool { return h.Writer == writer })
	if i < 0 {
		return storage.AuditHead{}, false
	}
	return heads[i], true
}
