package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// longestErrorCode is what the broker keeps of S3's error code.
const longestErrorCode = 64

// Source keeps credentials for grants, supplied by one stream to a broker. All
// its methods are safe for concurrent use, and none but Wait and Close blocks.
type Source struct {
	config Config
	log    *slog.Logger

	cancel  context.CancelFunc
	parts   sync.WaitGroup // the source's goroutines: run, and the keeper's if there is one
	updated chan struct{}
	reports chan struct{} // wakes the stream: there is something to report
	// These wake the keeper: it is asked to look, or there is a new stream.
	nudge, welcomed chan struct{}

	// turn is held while the state changes and the watchers are told of it, so
	// that they see every change once and in order. It is taken before mu.
	turn sync.Mutex

	// mu guards what follows. It is never held while the network, a callback
	// or the log is used.
	mu       sync.RWMutex
	clock    clock
	supplies map[string]*supply
	standing Event // the last word on the connection; no kind: none so far
	problem  *Event
	// certificate is the last word on the certificate; no kind: it is in no file.
	certificate Event
	talking     *conversation // the one that was welcomed and goes on, or nil
	changed     chan struct{} // closed and replaced at each change
	watchers    []*watcher
	closed      bool

	// The rest belongs to run's goroutine alone.
	session *session
	pace    pace
}

// supply is what is known about one grant. At most one of credential and
// revocation is set.
type supply struct {
	credential *Credential // its Expires is the STS's, not yet translated
	revocation *Event
	problem    *Event
	report     string // S3's error code, until the broker has been told
}

type watcher struct{ fn func(Event) }

// New checks the configuration, reporting all its problems at once, and starts
// the source. It does not wait for the broker: see [Source.Wait]. The source
// works until it is closed or ctx ends; close it in both cases.
func New(ctx context.Context, config Config) (*Source, error) {
	config, err := config.complete()
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := newSource(config)
	ctx, s.cancel = context.WithCancel(ctx)
	s.parts.Go(func() { s.run(ctx) })
	s.keep(ctx)
	return s, nil
}

// newSource makes a source that does not run yet.
func newSource(config Config) *Source {
	return &Source{
		config:   config,
		log:      config.Logger,
		updated:  make(chan struct{}, 1),
		reports:  make(chan struct{}, 1),
		nudge:    make(chan struct{}, 1),
		welcomed: make(chan struct{}, 1),
		clock:    newClock(),
		supplies: make(map[string]*supply),
		changed:  make(chan struct{}),
		pace:     newPace(),
	}
}

// Close ends the stream and waits until the source's goroutines have ended.
// Afterwards the source hands nothing out. Close must not be called from a
// function given to Watch. It always returns nil.
func (s *Source) Close() error {
	s.cancel()
	s.parts.Wait()
	return nil
}

// CheckCertificate has the certificate's files looked at now, rather than within
// the minute. A replaced certificate is taken into use without a gap: the source
// logs in with it first, and then moves the stream.
func (s *Source) CheckCertificate() { wake(s.nudge) }

// Wait blocks until each named grant has a good credential. Without names it
// waits for Config.Grants, and where those are empty too, for any one grant.
//
// It returns early where waiting cannot help: a *CredentialError with the
// broker's permanent reason, such as LOGIN_REJECTED. The source goes on trying
// nevertheless. When ctx ends, the error wraps its cause and what was last in
// the way.
func (s *Source) Wait(ctx context.Context, grants ...string) error {
	for {
		s.mu.RLock()
		changed, missing := s.changed, s.missing(grants)
		s.mu.RUnlock()
		if missing == nil {
			return nil
		}
		if !missing.passes() {
			return missing
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), missing)
		}
	}
}

// Credential gives the grant's credential from memory: the last good one. An
// empty grant means the only one. The error is a *CredentialError.
func (s *Source) Credential(grant string) (Credential, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.lookup(grant)
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

// Grants gives the names of the grants, sorted: the configured ones, or those
// that the broker has spoken of.
func (s *Source) Grants() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names()
}

// Updated gives a channel that receives after credentials came or were revoked.
// It holds one value: changes that follow each other quickly may be told as one,
// but the last one is never lost. There is one channel for the whole source; for
// several consumers use Watch.
func (s *Source) Updated() <-chan struct{} { return s.updated }

// Watch calls fn for what is so now and then for each event, in order, missing
// none, until stop is called. fn runs on the source's goroutines, one call at a
// time: it must return soon, and must call neither Watch nor Close. After stop has returned, a call
// already begun may still be running.
func (s *Source) Watch(fn func(Event)) (stop func()) {
	s.turn.Lock()
	defer s.turn.Unlock()
	w := &watcher{fn}
	s.mu.Lock()
	past := s.present()
	s.watchers = append(slices.Clip(s.watchers), w)
	s.mu.Unlock()
	for _, e := range past {
		fn(e)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers = slices.DeleteFunc(slices.Clone(s.watchers), func(x *watcher) bool { return x == w })
	}
}

// Refused reports that S3 refused the grant's present credential although it has
// not expired, with S3's error code, such as "InvalidAccessKeyId". The broker
// replaces it, once a minute at most: a new credential or a problem follows. The
// report waits for a stream where there is none.
func (s *Source) Refused(grant, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookup(grant)
	if err != nil {
		return err
	}
	code = printable(code)
	s.supplies[c.Grant].report = code[:min(len(code), longestErrorCode)]
	wake(s.reports)
	return nil
}

// lookup needs mu.
func (s *Source) lookup(name string) (Credential, *CredentialError) {
	if s.closed {
		return Credential{}, &CredentialError{Grant: name, State: ErrClosed}
	}
	if name == "" {
		switch names := s.names(); len(names) {
		case 0:
			return Credential{}, &CredentialError{State: ErrNoCredentialYet, Cause: s.cause(nil)}
		case 1:
			name = names[0]
		default:
			return Credential{}, &CredentialError{State: ErrAmbiguous}
		}
	}
	entry := s.supplies[name]
	switch {
	case len(s.config.Grants) > 0 && !slices.Contains(s.config.Grants, name):
		return Credential{}, &CredentialError{Grant: name, State: ErrNotConfigured}
	case entry == nil:
		return Credential{}, &CredentialError{Grant: name, State: ErrNoCredentialYet, Cause: s.cause(nil)}
	case entry.revocation != nil:
		return Credential{}, &CredentialError{Grant: name, State: ErrRevoked, Cause: asError(entry.revocation.Err)}
	case entry.credential == nil:
		return Credential{}, &CredentialError{Grant: name, State: ErrNoCredentialYet, Cause: s.cause(entry)}
	case !entry.credential.Expires.After(s.clock.now()):
		return Credential{}, &CredentialError{Grant: name, State: ErrExpired, Cause: s.cause(entry)}
	}
	c := *entry.credential
	c.Expires = s.clock.local(c.Expires)
	return c, nil
}

// cause says what keeps a grant from being supplied, or nil. It needs mu.
func (s *Source) cause(entry *supply) *Error {
	switch {
	case entry != nil && entry.problem != nil:
		return asError(entry.problem.Err)
	case s.standing.Kind == EventDisconnected:
		return asError(s.standing.Err)
	case s.problem != nil:
		return asError(s.problem.Err)
	}
	return nil
}

// missing says which of the grants has no good credential, or nil. It needs mu.
func (s *Source) missing(grants []string) *CredentialError {
	if len(grants) == 0 {
		grants = s.config.Grants
	}
	if len(grants) > 0 {
		for _, g := range grants {
			if _, err := s.lookup(g); err != nil {
				return err
			}
		}
		return nil
	}
	var first *CredentialError
	for _, g := range s.names() {
		_, err := s.lookup(g)
		if err == nil {
			return nil
		}
		// One that may still come is worth waiting for.
		if first == nil || !first.passes() {
			first = err
		}
	}
	if first == nil {
		_, first = s.lookup("")
	}
	return first
}

// passes says whether a credential may yet come without anybody's doing.
func (e *CredentialError) passes() bool {
	if errors.Is(e.State, ErrRevoked) {
		// With this reason the broker announces a new credential.
		return e.Cause != nil && e.Cause.Reason == ReasonGrantChanged
	}
	supplied := errors.Is(e.State, ErrNoCredentialYet) || errors.Is(e.State, ErrExpired)
	return supplied && (e.Cause == nil || !e.Cause.final())
}

// names needs mu.
func (s *Source) names() []string {
	names := slices.Clone(s.config.Grants)
	if len(names) == 0 {
		for name := range s.supplies {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// life is how long every grant still has a good credential. It needs mu.
func (s *Source) life() time.Duration {
	names := s.names()
	if len(names) == 0 {
		return 0
	}
	now, life := s.clock.now(), longestAdvice
	for _, name := range names {
		entry := s.supplies[name]
		switch {
		case entry != nil && entry.revocation != nil:
			continue // nothing can be lost here
		case entry == nil || entry.credential == nil:
			return 0
		}
		life = min(life, entry.credential.Expires.Sub(now))
	}
	return max(0, life)
}

// present tells the present state as events. It needs mu.
func (s *Source) present() []Event {
	var events []Event
	if s.certificate.Err != nil {
		events = append(events, s.certificate)
	}
	if s.standing.Kind != "" {
		events = append(events, s.standing)
	}
	for _, name := range s.names() {
		entry := s.supplies[name]
		if entry == nil {
			continue
		}
		if c, err := s.lookup(name); err == nil {
			events = append(events, Event{Kind: EventCredential, Time: time.Now(), Grant: name, Credential: c})
		}
		for _, e := range []*Event{entry.revocation, entry.problem} {
			if e != nil {
				events = append(events, *e)
			}
		}
	}
	if s.problem != nil {
		events = append(events, *s.problem)
	}
	return events
}

// apply changes the state and tells everybody. change runs under mu and returns
// what happened, nil for nothing.
func (s *Source) apply(change func() *Event) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	event := change()
	if event == nil {
		s.mu.Unlock()
		return
	}
	close(s.changed)
	s.changed = make(chan struct{})
	watchers := s.watchers
	s.mu.Unlock()

	s.logEvent(*event)
	if event.Kind == EventCredential || event.Kind == EventRevocation {
		wake(s.updated)
	}
	for _, w := range watchers {
		w.fn(*event)
	}
}

func (s *Source) logEvent(e Event) {
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("event", string(e.Kind))}
	if reason := ReasonOf(e.Err); reason != "" {
		attrs = append(attrs, slog.String("reason", string(reason)))
	}
	s.log.LogAttrs(context.Background(), level, e.String(), attrs...)
}

// wake sends to a channel of size one. A full one has a wake-up pending already,
// and whoever takes it will see everything.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// asError finds the *Error in err, or nil.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
