package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// maxSilence is how long a round may take before the picture counts as old:
// storage or an observer is stuck.
const maxSilence = 5 * time.Second

// turn is what a round's outcome means for the log.
type turn int

const (
	asBefore turn = iota
	fellBehind
	caughtUp
)

// progress is how far Run has come, for Sync and Behind.
//
// Each Sync draws a ticket. A round that begins afterwards covers it: it reads
// the feed's head later than the ticket was drawn, so whatever was committed
// before is included. A round that fails leaves its tickets to the next.
type progress struct {
	mu      sync.Mutex
	state   state
	drawn   int64
	covered int64
	// changed is closed and replaced whenever covered or state changes.
	changed chan struct{}
	failure error // of the last round
	moving  time.Time
}

type state int

const (
	waiting state = iota // for Run
	running
	stopped
)

func (p *progress) init(now time.Time) {
	p.changed = make(chan struct{})
	p.moving = now
}

func (p *progress) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *progress) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != waiting {
		return errors.New("directory: Run was called before")
	}
	p.state = running
	p.moving = time.Now()
	return nil
}

func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = stopped
	p.announce()
}

// begin says which tickets a round that starts now covers.
func (p *progress) begin() (ticket int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drawn
}

// end notes a round's outcome.
func (p *progress) end(ticket int64, err error, now time.Time) turn {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.failure
	p.failure = err
	if err == nil {
		p.covered = ticket
		p.moving = now
		p.announce()
	}
	switch {
	case before == nil && err != nil:
		return fellBehind
	case before != nil && err == nil:
		return caughtUp
	default:
		return asBefore
	}
}

// moved notes that a long round gets on.
func (p *progress) moved(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moving = now
}

// failed is why the last round failed, if it did.
func (p *progress) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Sync returns nil once everything that was committed before the call is
// applied and every observer has been told of it. It waits for Run to begin,
// and for storage to return, for as long as ctx allows; after Run has ended it
// fails at once.
func (d *Directory) Sync(ctx context.Context) error {
	p := &d.progress
	p.mu.Lock()
	p.drawn++
	ticket := p.drawn
	p.mu.Unlock()
	d.wakeUp()
	for {
		p.mu.Lock()
		covered, state, changed := p.covered, p.state, p.changed
		p.mu.Unlock()
		switch {
		case covered >= ticket:
			return nil
		case state == stopped:
			return reason.New(reason.Draining, "the broker is shutting down and reads no more changes; ask another")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return reason.New(reason.StorageUnavailable,
				"the broker has not read its latest changes yet; ask again to know that they are in force").
				Because(errors.Join(context.Cause(ctx), p.failed()))
		}
	}
}

// Behind is nil while the picture is kept current, and else says why it may be
// old: for readiness.
func (d *Directory) Behind() error {
	p := &d.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	silence := time.Since(p.moving)
	switch {
	case p.state == waiting:
		return errors.New("the directory is not followed yet")
	case p.state == stopped:
		return errors.New("the directory is not followed any more")
	case p.failure != nil:
		return fmt.Errorf("the directory is old by %v: %w", silence.Round(time.Second), p.failure)
	case silence > maxSilence:
		return fmt.Errorf("storage or an observer of the directory has not answered for %v", silence.Round(time.Second))
	default:
		return nil
	}
}
