package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// sinkChunk is how many records are written or read again at once.
	sinkChunk = 256
	// sinkPending is how many records wait in memory for a slow sink. Beyond
	// that they are read from storage when their turn comes.
	sinkPending = 4096
	// sinkGrace is how long Close waits for the sink.
	sinkGrace = 5 * time.Second
)

// SinkStats count what the second sink has done.
type SinkStats struct {
	// Lines written, and attempts to write that failed.
	Lines, Failures int64
	// Behind is how many durable records are not written yet.
	Behind int64
	// Lost records left the trail (by retention) before the sink took them.
	Lost int64
}

// resumer is a sink that knows the last record in it.
type resumer interface {
	// last gives the writer and sequence; ok is false where there is none.
	last() (writer string, sequence int64, ok bool)
}

// sink copies durable records to a writer, in order and at least once each. It
// keeps only a position and what is recent: a sink that hangs costs no memory
// and delays nobody.
type sink struct {
	out   io.Writer
	store storage.Audit
	log   *slog.Logger

	wake    chan struct{}
	closing chan struct{}
	close   sync.Once
	ended   chan struct{}

	mu sync.Mutex
	// goals are the chains to copy, the one in progress first.
	goals []goal
	// pending are the newest records in order, without gaps; perhaps none.
	pending []storage.AuditRecord
	counts  SinkStats
	err     error

	// torn, of the sink's goroutine: the last write ended inside a line.
	torn bool
}

// goal is one chain: the next record to copy, and the last durable one.
type goal struct {
	writer     string
	next, last int64
}

func newSink(out io.Writer, store storage.Audit, log *slog.Logger) *sink {
	return &sink{
		out: out, store: store, log: log,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}),
	}
}

// resume takes on what earlier processes made durable and did not get into the
// sink: the rest of the chain of the last record in it, and the chains that say
// in their first record that they were to follow one of these. It gives the
// chain that the next one follows; empty where the sink holds nothing.
func (s *sink) resume(ctx context.Context, heads []storage.AuditHead) (after string, err error) {
	known, ok := s.out.(resumer)
	if !ok {
		return "", nil
	}
	after, sequence, ok := known.last()
	if !ok {
		return "", nil
	}
	owed := map[string]bool{after: true}
	for _, head := range byWriter(heads) {
		switch {
		case head.Writer == after:
			s.goals = append(s.goals, goal{after, sequence + 1, head.Sequence})
		case head.Writer > after && head.First == 1:
			first, err := s.store.AuditChain(ctx, head.Writer, 1, 1)
			if err != nil {
				return "", fmt.Errorf("look for what the second audit sink lacks: %w", err)
			}
			if len(first) == 1 && owed[first[0].Detail[sinkKey]] {
				owed[head.Writer] = true
				s.goals = append(s.goals, goal{head.Writer, 1, head.Sequence})
			}
		}
	}
	return after, nil
}

// offer tells of records that have become durable. It never waits.
func (s *sink) offer(records []storage.AuditRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to := records[0], records[len(records)-1]
	if n := len(s.goals); n > 0 && s.goals[n-1].writer == to.Writer {
		s.goals[n-1].last = to.Sequence
	} else {
		s.goals = append(s.goals, goal{to.Writer, from.Sequence, to.Sequence})
	}
	if n := len(s.pending); n > 0 && (n+len(records) > sinkPending || s.pending[n-1].Hash != from.PrevHash) {
		s.pending = nil // storage has them
	}
	s.pending = append(s.pending, records...)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run copies until ctx ends, or until it is closed and nothing is left or the
// sink fails.
func (s *sink) run(ctx context.Context) {
	defer close(s.ended)
	var wait backoff
	for {
		more, err := s.step(ctx)
		s.note(err)
		switch {
		case err != nil:
			select {
			case <-ctx.Done():
				return
			case <-s.closing:
				return
			case <-time.After(wait.next()):
			}
		case more:
			wait.reset()
		default:
			select {
			case <-s.wake:
			case <-ctx.Done():
				return
			case <-s.closing:
				if s.stats().Behind == 0 {
					return
				}
			}
		}
	}
}

func (s *sink) note(err error) {
	s.mu.Lock()
	before := s.err
	s.err = err
	if err != nil {
		s.counts.Failures++
	}
	s.mu.Unlock()
	if before == nil && err != nil {
		s.log.Error("the second audit sink fails; it will be caught up from storage", "error", err)
	}
	if before != nil && err == nil {
		s.log.Info("the second audit sink works again")
	}
}

// step copies one chunk, and reports whether there may be more.
func (s *sink) step(ctx context.Context) (more bool, err error) {
	goal, records, ok := s.due()
	if !ok {
		return false, nil
	}
	if len(records) == 0 {
		if records, err = s.store.AuditChain(ctx, goal.writer, goal.next, sinkChunk); err != nil {
			return false, fmt.Errorf("read the audit trail for the second sink: %w", err)
		}
	}
	if len(records) == 0 || records[0].Sequence > goal.last {
		s.skip(goal.last + 1)
		return true, nil
	}
	if first := records[0].Sequence; first > goal.next {
		s.skip(first)
	}
	return true, s.write(records)
}

// due gives the chain to copy now, and the next of its records where they are
// in memory.
func (s *sink) due() (goal, []storage.AuditRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.goals) > 1 && s.goals[0].next > s.goals[0].last {
		s.goals = s.goals[1:]
	}
	if len(s.goals) == 0 || s.goals[0].next > s.goals[0].last {
		return goal{}, nil, false
	}
	g := s.goals[0]
	at := slices.IndexFunc(s.pending, func(r storage.AuditRecord) bool { return r.Writer == g.writer && r.Sequence == g.next })
	if at < 0 {
		return g, nil, true
	}
	ready := s.pending[at:min(len(s.pending), at+sinkChunk)]
	if other := slices.IndexFunc(ready, func(r storage.AuditRecord) bool { return r.Writer != g.writer }); other >= 0 {
		ready = ready[:other]
	}
	s.pending = s.pending[at+len(ready):]
	return g, ready, true
}

// skip goes on at a sequence, because what stood before is no longer stored.
func (s *sink) skip(to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := to - s.goals[0].next
	s.counts.Lost += lost
	s.goals[0].next = to
	s.log.Error("records left the audit trail before the second sink had them", "records", lost)
}

// write writes the records as lines. Of a write that fails in the middle, the
// whole lines count, and the broken one is ended before it is repeated.
func (s *sink) write(records []storage.AuditRecord) error {
	var b []byte
	if s.torn {
		b = append(b, '\n')
	}
	begin := len(b)
	for _, r := range records {
		b = AppendLine(b, r)
	}
	n, err := s.out.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	n = min(max(n, 0), len(b))
	if n > 0 {
		s.torn = b[n-1] != '\n'
	}
	lines := bytes.Count(b[min(begin, n):n], []byte{'\n'})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Lines += int64(lines)
	s.goals[0].next = records[0].Sequence + int64(lines)
	if err != nil {
		return fmt.Errorf("write to the second audit sink: %w", err)
	}
	return nil
}

// errSinkSlow is why a sink that works lacks records at the end.
var errSinkSlow = errors.New("it did not take them in time")

func (s *sink) healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sink) stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.counts
	for _, g := range s.goals {
		stats.Behind += max(0, g.last-g.next+1)
	}
	return stats
}

// finish lets the sink catch up for a moment and ends it.
func (s *sink) finish(ctx context.Context) error {
	s.close.Do(func() { close(s.closing) })
	grace := time.NewTimer(sinkGrace)
	defer grace.Stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
	case <-grace.C:
	}
	if behind := s.stats().Behind; behind > 0 {
		return fmt.Errorf("the second audit sink lacks %d records, which are in the trail: %w", behind, cmp.Or(s.healthy(), errSinkSlow))
	}
	return nil
}
