package stream

import (
	"math"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// wake does for the stream what has become due, and sets its next moment. It
// runs on the registry's one goroutine for all streams, and never waits.
func (s *Stream) wake() {
	// What should have been announced as a change is found here at the latest.
	err := s.registry.Checker.Check(*s.principal)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	now := s.registry.clock()
	if over := s.over(now); over != nil {
		err = over
	}
	if err == nil {
		if s.subscribed && now >= s.nextBeat {
			s.outbox.heartbeat = true
			s.nextBeat = s.registry.beatAfter(now, s.phase)
			s.start()
		}
		s.schedule(now)
	}
	s.mu.Unlock()
	if err != nil {
		s.end(err)
	}
}

// over says why the stream's time is over; nil: it is not. mu is held.
func (s *Stream) over(now time.Duration) error {
	end, why := s.expiry()
	switch {
	case !end.After(s.registry.Now()):
		return why
	case !s.subscribed && now-s.began >= firstMessage:
		return reason.New(reason.SubscribeFirst, "no subscription came within %s", firstMessage)
	case s.sending && now-s.sentAt >= stallLimit:
		return reason.New(reason.StreamStalled, "nothing was read for %s; reconnect, and read", stallLimit)
	case s.leaveBy != 0 && now >= s.leaveBy:
		return s.registry.errDraining()
	}
	return nil
}

// expiry is when the certificate or the session ends by the wall clock,
// whichever is first, and the error that it ends with.
func (s *Stream) expiry() (time.Time, *reason.Error) {
	// Without their monotonic part these compare with the clock on the wall.
	end, why := s.principal.Certificate.NotAfter.Round(0), errCertificateExpired
	if session := s.principal.SessionExpires.Round(0); s.principal.SessionID != "" && session.Before(end) {
		end, why = session, errSessionExpired
	}
	return end, why
}

var (
	errCertificateExpired = reason.New(reason.CertificateExpired, "the certificate has expired; reconnect with a new one")
	errSessionExpired     = reason.New(reason.TokenExpired, "the access token has expired; log in again")
)

// schedule sets when the stream is woken next: at the latest with the next
// heartbeat. So a certificate's end is found although the wall clock was set
// forward, and is only looked at once more if it was set back. mu is held.
func (s *Stream) schedule(now time.Duration) {
	at := s.began + firstMessage
	if s.subscribed {
		at = min(s.nextBeat, now+stallLimit)
	}
	end, _ := s.expiry()
	// The wall clock may run slower than the monotonic one: a moment's pause
	// keeps the two from being compared over and over.
	at = min(at, now+max(end.Sub(s.registry.Now()), time.Millisecond))
	if s.sending {
		at = min(at, s.sentAt+stallLimit)
	}
	if s.leaveBy != 0 {
		at = min(at, s.leaveBy)
	}
	s.registry.timers.set(s, at)
}

// beatAfter is the first moment after now at which a stream of that phase has a
// heartbeat. All streams' heartbeats lie evenly spread over each interval,
// however close together the streams were opened.
func (r *Registry) beatAfter(now, phase time.Duration) time.Duration {
	if now < phase {
		return phase
	}
	return phase + ((now-phase)/r.Heartbeat+1)*r.Heartbeat
}

// phaseOf spreads the streams, numbered in the order of their opening, evenly
// over the interval: each multiple of the golden ratio, less its whole part,
// falls into a largest gap that those before left.
func (r *Registry) phaseOf(number int64) time.Duration {
	const golden = 0.6180339887498949
	_, part := math.Modf(float64(number) * golden)
	return time.Duration(part * float64(r.Heartbeat))
}
