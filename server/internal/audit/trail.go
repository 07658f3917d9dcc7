package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// NoFence is the fence of a record that no later change can make wrong.
	NoFence int64 = -1
	// maxBatch is how many records one commit takes.
	maxBatch = 256
	// maxQueued is how many callers' records wait for the committer. Further
	// callers wait for a place.
	maxQueued = 1024
	// commitTimeout is how long storage may take for one commit.
	commitTimeout = 10 * time.Second
	// slowCommit is how long a commit may run before the trail counts as not
	// working.
	slowCommit = 5 * time.Second
	// checkpointEvery is how often a writer notes where the others stand.
	checkpointEvery = 24 * time.Hour
	// retryAfter is what a caller is told to wait when the trail fails.
	retryAfter = time.Second
)

// ErrStale says that the change feed moved past the fence before the record
// could be stored: what the caller decided may be wrong now. Nothing was
// stored. Look again and decide again.
var ErrStale = errors.New("the directory changed since the decision; look again")

var errClosed = errors.New("the audit trail is closed")

// Options are what Open can do without. The zero value is usable.
type Options struct {
	// Log gets what operators must know; nil: nothing is logged.
	Log *slog.Logger
	// OlderKeys still check seals that were made before the key changed.
	OlderKeys []secret.String
	// Sink gets every durable record as a JSON line, after the record is
	// durable. It may fail or hang without harm to the trail, which catches up
	// from storage when it works again. A File also goes on where an earlier
	// process stopped. The trail does not close it. Nil: none.
	Sink io.Writer
	// Committed is called after each attempt to commit, for metrics. It must
	// be quick. Nil: not called.
	Committed func(Commit)
}

// Commit is one attempt to make a batch durable.
type Commit struct {
	Took time.Duration
	// Records that became durable; Stale ones that were answered ErrStale.
	Records, Stale int
	// Err is why the batch failed.
	Err error
}

// Trail writes one chain. Its methods are safe for concurrent use.
type Trail struct {
	store     storage.Audit
	seals     sealer
	log       *slog.Logger
	committed func(Commit)
	sink      *sink // nil: none

	queue   chan *request
	closing chan struct{}
	close   sync.Once
	ended   chan struct{} // closed when the committer has ended
	ctx     context.Context
	cancel  context.CancelFunc

	// turn holds one token. Whoever takes it may read and move the chain: the
	// committer, and Trim between commits. It is not a mutex, so that Trim
	// can stop waiting for it.
	turn  chan struct{}
	chain chain

	state state
}

// request is one caller's record on its way.
type request struct {
	record storage.AuditRecord
	fence  int64
	// answer gets the outcome once; it has room, so that the committer never
	// waits for a caller who left. On nil, record is what was stored.
	answer chan error
}

// Open begins a new chain and writes its first record, a checkpoint: a trail
// that opens can be written. The key is 32 random bytes and the same in every
// broker of the storage.
func Open(ctx context.Context, store storage.Audit, key secret.String, opts Options) (*Trail, error) {
	seals, err := newSealer(key, opts.OlderKeys)
	if err != nil {
		return nil, err
	}
	heads, err := store.AuditHeads(ctx)
	if err != nil {
		return nil, unavailable(fmt.Errorf("read the heads of the audit trail: %w", err))
	}
	t := &Trail{
		store: store, seals: seals, log: opts.Log, committed: opts.Committed,
		queue: make(chan *request, maxQueued), closing: make(chan struct{}), ended: make(chan struct{}),
		turn: make(chan struct{}, 1),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.committed == nil {
		t.committed = func(Commit) {}
	}
	after := ""
	if opts.Sink != nil {
		t.sink = newSink(opts.Sink, store, t.log)
		if after, err = t.sink.resume(ctx, heads); err != nil {
			return nil, unavailable(err)
		}
	}
	if t.chain, err = newChain(heads, seals, after); err != nil {
		return nil, err
	}
	t.state.moved(t.chain.head)
	// The committer's work is nobody's request: it outlives ctx.
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := t.commit(ctx, nil); err != nil {
		t.cancel()
		return nil, err
	}
	t.turn <- struct{}{}
	if t.sink != nil {
		go t.sink.run(t.ctx)
	}
	go t.run()
	return t, nil
}

// Append stores the record in the chain and returns once it is durable, as it
// was stored. The trail sets Writer, Sequence, Time (the moment of the commit,
// by the broker's clock), PrevHash and Hash; texts that are too long or cannot
// be stored are cut and replaced.
//
// A fence of 0 or more is the directory's sequence that the decision rests on:
// if the change feed stands elsewhere at the commit, nothing is stored and the
// answer is ErrStale.
//
// If the trail cannot be written the answer is AUDIT_UNAVAILABLE, and what the
// record tells of must not happen. A caller whose ctx ends gets the same
// answer around the context's error; its record may still be stored.
func (t *Trail) Append(ctx context.Context, record storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	if !known[Event(record.Event)] {
		return storage.AuditRecord{}, reason.New(reason.Internal, "no event is called %.64q", record.Event)
	}
	r := &request{record: record, fence: fence, answer: make(chan error, 1)}
	boundIn(&r.record)
	if err := t.enqueue(ctx, r); err != nil {
		return storage.AuditRecord{}, err
	}
	err := t.await(ctx, r)
	if err != nil {
		return storage.AuditRecord{}, err
	}
	return r.record, nil
}

// enqueue waits for a place in the queue. If there is one, it takes it also
// for a ctx that has ended: nobody escapes the trail by hanging up.
func (t *Trail) enqueue(ctx context.Context, r *request) error {
	select {
	case <-t.closing:
		return unavailable(errClosed)
	default:
	}
	select {
	case t.queue <- r:
		return nil
	default:
	}
	select {
	case t.queue <- r:
		return nil
	case <-ctx.Done():
		return unavailable(fmt.Errorf("wait for a place in the audit queue: %w", context.Cause(ctx)))
	case <-t.closing:
		return unavailable(errClosed)
	}
}

func (t *Trail) await(ctx context.Context, r *request) error {
	select {
	case err := <-r.answer:
		return err
	case <-ctx.Done():
		return unavailable(fmt.Errorf("wait for the audit record to be stored: %w", context.Cause(ctx)))
	case <-t.ended:
	}
	// The committer has ended, but it may have answered before.
	select {
	case err := <-r.answer:
		return err
	default:
		return unavailable(errClosed)
	}
}

// unavailable is what callers are told when a record is not stored.
func unavailable(cause error) *reason.Error {
	return reason.New(reason.AuditUnavailable, "the audit trail cannot be written; wait and try again").
		Because(cause).After(retryAfter)
}

// Writer names the chain that records are written to now. It changes only if
// storage lost the chain, see docs/audit.md.
func (t *Trail) Writer() string { return t.state.head().Writer }

// Close stores what is queued, refuses anything later, and ends. When ctx ends
// first, what is not stored yet is given up and the error says so. The sink
// gets a moment to catch up; what it misses is in the trail.
func (t *Trail) Close(ctx context.Context) error {
	t.close.Do(func() { close(t.closing) })
	defer t.cancel()
	select {
	case <-t.ended:
	case <-ctx.Done():
		t.cancel()
		return fmt.Errorf("close the audit trail: %w", context.Cause(ctx))
	}
	if t.sink == nil {
		return nil
	}
	return t.sink.finish(ctx)
}
