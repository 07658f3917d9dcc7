package client

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// tokenMargin is how much life an access token must have left to be used.
	tokenMargin = 30 * time.Second
	// shortStream is a stream so short that another login right after it would
	// be a loop.
	shortStream = time.Minute
)

// session is a login that can be used again. The token is secret; the struct is
// kept behind a pointer so that printing the source does not show it.
type session struct {
	token      string
	expires    time.Time
	thumbprint [sha256.Size]byte // of the certificate that it is bound to
}

// outcome is how an attempt to be supplied ended.
type outcome struct {
	broker string
	// err is nil where the broker ended the stream as it had said.
	err *Error
	// welcomed: there was a stream. useful: it brought more than the welcome.
	welcomed, useful bool
	lasted           time.Duration
	// back is when to connect again, where the broker has said so.
	back time.Time
	// next is where the stream goes on at once, where it does.
	next *move
}

// run is the source's goroutine.
func (s *Source) run(ctx context.Context) {
	defer s.shut()
	for {
		end := s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if !rest(ctx, s.settle(end)) {
			return
		}
	}
}

// shut ends the waits and hides the credentials.
func (s *Source) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.session = nil
	clear(s.supplies)
	s.watchers = nil
	close(s.changed)
	s.changed = make(chan struct{})
}

// settle says how long to wait after an attempt, and tells of its end.
func (s *Source) settle(end outcome) time.Duration {
	if end.useful {
		s.pace.reset()
	}
	s.mu.RLock()
	life := s.life()
	s.mu.RUnlock()
	wait := time.Until(end.back)
	if end.back.IsZero() {
		wait = s.pace.next(end.err, life)
	}
	s.disconnected(end, wait)
	return wait
}

func (s *Source) disconnected(end outcome, wait time.Duration) {
	if end.err != nil && end.err.Reason.cutsOff() {
		s.cutOff(end.err)
	}
	s.apply(func() *Event {
		now := time.Now()
		s.standing = Event{Kind: EventDisconnected, Time: now, Broker: end.broker, RetryTime: now.Add(max(0, wait))}
		if end.err != nil {
			s.standing.Err = end.err
		}
		s.problem = nil
		event := s.standing
		return &event
	})
}

// cutOff takes all credentials out of use: whoever they were issued to is let in no
// more. The broker denies them at AWS where it can; a tool must not go on until it
// has.
func (s *Source) cutOff(why *Error) {
	for _, grant := range s.Grants() {
		s.apply(func() *Event { return s.revoke(grant, "", why) })
	}
}

// revoke takes a grant's credential out of use, if there is one and it is the
// named one. It needs mu.
func (s *Source) revoke(grant, id string, why *Error) *Event {
	entry := s.supplies[grant]
	if entry == nil || entry.credential == nil || (id != "" && entry.credential.ID != id) {
		return nil
	}
	of := *why
	of.Grant = grant
	event := &Event{Kind: EventRevocation, Time: time.Now(), Grant: grant, CredentialID: id, Err: &of}
	kept := *event
	s.supplies[grant] = &supply{revocation: &kept}
	return event
}

// round tries the brokers in order until one welcomes the source or refuses it
// for good: another would only refuse it again, and count the wrong password
// again.
func (s *Source) round(ctx context.Context) outcome {
	var kept outcome
	for i, broker := range s.config.Brokers {
		end := s.visit(ctx, broker)
		if ctx.Err() != nil || end.welcomed || end.err == nil || (end.err.Reason != "" && end.err.final()) {
			return end
		}
		// An error that passes says more about what to expect than one that
		// does not: another broker may be well.
		if i == 0 || (kept.err.final() && !end.err.final()) {
			kept = end
		}
		if i < len(s.config.Brokers)-1 {
			s.log.Warn("trying the next broker", slog.String("broker", broker), slog.String("error", end.err.Error()))
		}
	}
	return kept
}

// visit logs in at one broker where that is needed and holds a stream for as
// long as it lasts. It logs in again by itself where only the token was of no
// use, unless that token was made just before.
func (s *Source) visit(ctx context.Context, broker string) outcome {
	l, err := s.config.dial(broker)
	if err != nil {
		return outcome{broker: broker, err: asError(err)}
	}
	defer func() { l.close() }()
	for {
		token, fresh, err := s.login(ctx, l)
		if err != nil {
			return outcome{broker: broker, err: err}
		}
		end := s.converse(ctx, l, broker, token)
		if end.next != nil {
			l.close()
			l, s.session = end.next.link, end.next.session
			continue
		}
		if end.err == nil || !end.err.Reason.loginHelps() || s.config.Delegation != nil {
			return end
		}
		s.session = nil
		if fresh && end.lasted < shortStream {
			return end
		}
		wait := s.pace.again(end.err)
		if end.welcomed {
			s.disconnected(end, wait)
		}
		if !rest(ctx, wait) {
			return end
		}
	}
}

// login gives an access token for this link: the kept one, or a fresh one. A
// service needs none.
func (s *Source) login(ctx context.Context, l *link) (token string, fresh bool, failed *Error) {
	if s.config.Delegation != nil {
		return "", false, nil
	}
	if kept := s.session; kept != nil && kept.thumbprint == l.thumbprint && s.now().Add(tokenMargin).Before(kept.expires) {
		return kept.token, false, nil
	}
	s.session, failed = s.config.createSession(ctx, l)
	if failed != nil {
		return "", false, failed
	}
	return s.session.token, true, nil
}

// createSession logs in with the password. The session is nil where that failed.
func (c Config) createSession(ctx context.Context, l *link) (*session, *Error) {
	basic, err := c.basic(ctx)
	if err != nil {
		return nil, asError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := l.sessions().CreateSession(authorized(ctx, basic), &stokerv1.CreateSessionRequest{})
	if err != nil {
		return nil, l.explain(ctx, err)
	}
	if !plain(answer.GetAccessToken()) || answer.GetExpireTime().CheckValid() != nil {
		return nil, &Error{Transient: true, Message: "the broker sent a malformed access token"}
	}
	return &session{token: answer.GetAccessToken(), expires: answer.GetExpireTime().AsTime(), thumbprint: l.thumbprint}, nil
}

// now is the broker's time as far as it is known.
func (s *Source) now() time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.clock.now()
}

// rest waits, and says whether the source goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errSilence ends a stream on which nothing was heard for too long.
var errSilence = &Error{Transient: true, Message: "nothing was heard from the broker for too long"}
