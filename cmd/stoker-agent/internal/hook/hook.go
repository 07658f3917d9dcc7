package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// What a command is run for.
const (
	// Renewal: a credential arrived, the first one included.
	Renewal = "renewal"
	// Revocation: the grant's credential was taken out of use.
	Revocation = "revocation"
)

// mostAtOnce bounds the commands that run at a time, for all grants.
const mostAtOnce = 4

// Event is what a command is told.
type Event struct {
	// Kind is Renewal or Revocation.
	Kind string
	// Login and Grant say whose it is.
	Login, Grant string
	// Expires is when the new credential ends. Zero for a revocation.
	Expires time.Time
	// Reason is the broker's. Empty for a renewal.
	Reason string
	// Profile is the grant's in the shared-credentials file. May be empty.
	Profile string
}

// Outcome is how a command's last run ended.
type Outcome struct {
	// Kind is the event's.
	Kind string
	// Time is when it ended, Took how long it ran.
	Time time.Time
	Took time.Duration
	// Err says what went wrong. Nil: its exit code was 0.
	Err error
}

// Config says what to run.
type Config struct {
	// Command is a program and its arguments.
	Command []string
	// Timeout is how long it may run.
	Timeout time.Duration
	// Environment is what the command inherits: that of this process, from which
	// our own settings and credentials are taken out.
	Environment []string
	// Socket is where the command's own calls of stoker-agent find the agent.
	Socket string
}

// Runner runs the command. Its methods are safe for concurrent use.
type Runner struct {
	config Config
	log    *slog.Logger
	run    func(ctx context.Context, command, environment []string) error
	slots  chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	grants map[string]*line
}

// line is what is to be done for one grant.
type line struct {
	running bool
	next    *Event // what came meanwhile
	last    *Outcome
}

// New makes a runner. Close it when done.
func New(config Config, log *slog.Logger) *Runner {
	return newRunner(config, log, runProcess)
}

func newRunner(config Config, log *slog.Logger, run func(context.Context, []string, []string) error) *Runner {
	r := &Runner{
		config: config, log: log, run: run, slots: make(chan struct{}, mostAtOnce), grants: make(map[string]*line),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Tell has the command run for an event, and returns at once. Where it is still
// running for the grant, it runs once more afterwards, for the last event that
// came meanwhile: how the grant stands then is what counts.
func (r *Runner) Tell(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	l := r.grants[e.Grant]
	if l == nil {
		l = &line{}
		r.grants[e.Grant] = l
	}
	l.next = &e
	if !l.running {
		l.running = true
		r.runs.Go(func() { r.work(l) })
	}
}

// Last gives how the last run for a grant ended; false: there was none.
func (r *Runner) Last(grant string) (Outcome, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.grants[grant]
	if l == nil || l.last == nil {
		return Outcome{}, false
	}
	return *l.last, true
}

// Close ends what runs, and waits for it.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.runs.Wait()
}

// work runs the command for one grant until there is nothing more to tell.
func (r *Runner) work(l *line) {
	for {
		r.mu.Lock()
		e := l.next
		l.next = nil
		if e == nil || r.closed {
			l.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		select {
		case r.slots <- struct{}{}:
		case <-r.ctx.Done():
			continue
		}
		outcome := r.once(*e)
		<-r.slots
		r.mu.Lock()
		l.last = &outcome
		r.mu.Unlock()
	}
}

// once runs the command once, and logs how it ended.
func (r *Runner) once(e Event) Outcome {
	ctx, cancel := context.WithTimeout(r.ctx, r.config.Timeout)
	defer cancel()
	began := time.Now()
	err := r.run(ctx, r.config.Command, r.environment(e))
	switch {
	case err == nil:
	case r.ctx.Err() != nil:
		err = errors.New("it was ended, since the agent stops")
	case ctx.Err() != nil:
		err = fmt.Errorf("it was ended after %s, which is its timeout", r.config.Timeout)
	}
	outcome := Outcome{Kind: e.Kind, Time: time.Now(), Took: time.Since(began), Err: err}
	attrs := []any{
		slog.String("grant", e.Grant), slog.String("event", e.Kind), slog.Duration("took", outcome.Took.Round(time.Millisecond)),
	}
	if err != nil {
		r.log.Error("the hook failed", append(attrs, slog.String("error", err.Error()))...)
	} else {
		r.log.Info("the hook ran", attrs...)
	}
	return outcome
}
