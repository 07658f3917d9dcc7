package lease

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// recovery is how long the pace takes from nothing back to the configured
	// rate.
	recovery = time.Minute
	// deepest is how far throttling slows an account down: to one call in this
	// many.
	deepest = 64
	// slack covers rounding in the bucket, so that waiting for a token ends
	// when there is one.
	slack = time.Microsecond
)

// pace is an account's budget of STS calls. The configured rate is a ceiling;
// each time STS throttles the rate is halved, and grows back slowly.
type pace struct {
	bucket *rate.Limiter
	full   rate.Limit
	// low is the rate right after the last cut, which was at cut; zero: the
	// rate is full.
	low rate.Limit
	cut time.Time
}

// newPace allows short bursts of a tenth of a second's calls.
func newPace(perSecond float64) *pace {
	return &pace{full: rate.Limit(perSecond), bucket: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))}
}

// rateAt is the rate in force.
func (p *pace) rateAt(now time.Time) rate.Limit {
	if p.cut.IsZero() {
		return p.full
	}
	return min(p.full, p.low+p.full*rate.Limit(now.Sub(p.cut)/time.Millisecond)/rate.Limit(recovery/time.Millisecond))
}

// wait is how long until a call may be made: 0 if now.
func (p *pace) wait(now time.Time) time.Duration {
	if p == nil {
		return 0
	}
	r := p.rateAt(now)
	if r != p.bucket.Limit() {
		p.bucket.SetLimitAt(now, r)
	}
	if r == p.full {
		p.cut = time.Time{}
	}
	missing := 1 - p.bucket.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing/float64(r)*float64(time.Second)) + slack
}

// take spends the one token that a call costs.
func (p *pace) take(now time.Time) bool { return p == nil || p.bucket.AllowN(now, 1) }

// throttled halves the rate. A burst of refusals to calls that were all made
// at the old rate halves it once.
func (p *pace) throttled(started, now time.Time) {
	if !p.cut.IsZero() && started.Before(p.cut) {
		return
	}
	p.low = max(p.rateAt(now)/2, p.full/deepest)
	p.cut = now
	p.bucket.SetLimitAt(now, p.low)
}
