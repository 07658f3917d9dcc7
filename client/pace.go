package client

import (
	"math/rand/v2"
	"time"
)

// The delays between attempts to reach a broker.
const (
	// firstDelay is the ceiling of the first delay of a source that has nothing
	// to hand out.
	firstDelay = time.Second
	// restedDelay is the same for a source with good credentials: a broker that
	// crashed gets its agents back over ten seconds and not all at once. It is
	// less where a tenth of the credentials' remaining life is less.
	restedDelay = 10 * time.Second
	// longestDelay is what the ceiling grows to.
	longestDelay = time.Minute
	// refusedDelay is the upper bound after a permanent error, when trying
	// again is a way to notice that somebody has corrected the mistake.
	refusedDelay = 5 * time.Minute
	// loginDelay is the ceiling of the delay before a source logs in again whose
	// access token was ended: whoever shares its login does the same now.
	loginDelay = 2 * time.Second
	// longestAdvice bounds what a broker may ask us to wait.
	longestAdvice = time.Hour
)

// pace draws the delays between attempts.
type pace struct {
	failures int
	random   func(time.Duration) time.Duration // uniform in [0, d)
}

func newPace() pace {
	return pace{random: func(d time.Duration) time.Duration {
		if d <= 0 {
			return 0
		}
		return rand.N(d)
	}}
}

// reset forgets earlier failures. It is called when the broker has done
// something useful, which a mere welcome is not: a broker that dies after
// each welcome would be hammered.
func (p *pace) reset() { p.failures = 0 }

// next draws the delay after an attempt that ended with err, which may be nil.
// life is how long all of the source's grants still have good credentials; 0: one
// has none.
func (p *pace) next(err *Error, life time.Duration) time.Duration {
	if err != nil && err.final() {
		p.failures++
		return max(refusedDelay/2+p.random(refusedDelay/2), p.advice(err))
	}
	ceiling := min(max(life/10, firstDelay), restedDelay)
	// Not yet after the first failure: who came back a moment too early, while
	// the broker was still starting, is as welcome as the others.
	for range p.failures - 1 {
		if ceiling >= longestDelay {
			break
		}
		ceiling *= 2
	}
	p.failures++
	return p.advice(err) + p.random(min(ceiling, longestDelay))
}

// again draws the delay before another login after err, which a login heals.
// It is no failure.
func (p *pace) again(err *Error) time.Duration { return p.advice(err) + p.random(loginDelay) }

func (p *pace) advice(err *Error) time.Duration {
	if err == nil {
		return 0
	}
	return min(err.RetryAfter, longestAdvice)
}
