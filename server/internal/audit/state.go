package audit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Stats count what a trail has done since it was opened.
type Stats struct {
	// Records that are durable, and the commits that made them so.
	Records, Commits int64
	// Failed records were answered AUDIT_UNAVAILABLE, in so many failed
	// commits.
	Failed, Failures int64
	// Stale records were answered ErrStale.
	Stale int64
	// Queued is how many records wait now.
	Queued int
	Sink   SinkStats
}

// state is what is known of the trail without its turn.
type state struct {
	mu      sync.Mutex
	current storage.AuditHead // as last committed
	stats   Stats
	// committing is when the commit in progress began; zero: none is.
	committing time.Time
	// err is why the last commit failed, since when none succeeded, and how
	// many records that cost.
	err    error
	since  time.Time
	failed int64
}

// outcome is what came of one commit.
type outcome struct {
	records, stale, requests int
	err                      error
}

func (s *state) begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committing = now
}

// end notes an outcome, and says whether an outage began or ended with it.
func (s *state) end(o outcome, now time.Time) (began, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committing = time.Time{}
	before := s.err
	s.err = o.err
	if o.err != nil {
		if before == nil {
			s.since = now
		}
		s.failed += int64(o.requests)
		s.stats.Failed += int64(o.requests)
		s.stats.Failures++
		return before == nil, false
	}
	s.failed = 0
	s.stats.Records += int64(o.records)
	s.stats.Stale += int64(o.stale)
	s.stats.Commits++
	return false, before != nil
}

func (s *state) moved(head storage.AuditHead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = head
}

func (s *state) head() storage.AuditHead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *state) failing() bool {
	_, _, failing := s.outage()
	return failing
}

func (s *state) outage() (since time.Time, failed int64, failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.failed, s.err != nil
}

// Healthy is nil while records become durable, and else an AUDIT_UNAVAILABLE
// that says why not. A trail that fails tries to write by itself and becomes
// healthy again without being asked.
func (t *Trail) Healthy() error {
	select {
	case <-t.closing:
		return unavailable(errClosed)
	default:
	}
	t.state.mu.Lock()
	defer t.state.mu.Unlock()
	if err := t.state.err; err != nil {
		return unavailable(err)
	}
	if begun := t.state.committing; !begun.IsZero() {
		if took := time.Since(begun); took > slowCommit {
			return unavailable(fmt.Errorf("a commit has been running for %v", took.Round(time.Second)))
		}
	}
	return nil
}

// SinkHealthy is nil while the second sink takes lines, or where there is none.
func (t *Trail) SinkHealthy() error {
	if t.sink == nil {
		return nil
	}
	return t.sink.healthy()
}

// Stats counts.
func (t *Trail) Stats() Stats {
	t.state.mu.Lock()
	stats := t.state.stats
	t.state.mu.Unlock()
	stats.Queued = len(t.queue)
	if t.sink != nil {
		stats.Sink = t.sink.stats()
	}
	return stats
}

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// backoff doubles from minBackoff to maxBackoff.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

// next is between half and the whole of the wait.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, minBackoff), maxBackoff)
	return b.last/2 + rand.N(b.last/2)
}
