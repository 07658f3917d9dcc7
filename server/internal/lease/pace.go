package lease

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

const (
	// A cut leaves cutTo of the rate. From there it climbs to near where STS
	// throttled within regain, and then doubles in each doubling: most of a
	// quota that has become small is used, and a throttling that has passed is
	// soon forgotten. CUBIC (RFC 9438) does the same, and cuts as far.
	cutTo    = 0.7
	regain   = 3 * time.Second
	nearly   = 0.9
	doubling = 30 * time.Second
	// deepest is how far throttling slows an account down: to one call in this
	// many.
	deepest = 64
	// slack covers rounding in the bucket, so that waiting for a token ends
	// when there is one.
	slack = time.Microsecond
)

// pace is an account's budget of STS calls. The configured rate is a ceiling;
// each time STS throttles the rate is cut, and grows back.
type pace struct {
	bucket *rate.Limiter
	full   rate.Limit
	// cut is when the rate was last cut from top to low; zero: it is full.
	low, top rate.Limit
	cut      time.Time
}

func newPace(perSecond float64) *pace {
	full := rate.Limit(perSecond)
	return &pace{full: full, bucket: rate.NewLimiter(full, burst(full))}
}

// burst is how many calls may be made at once: a tenth of a second's.
func burst(r rate.Limit) int { return max(1, int(r/10)) }

// limit puts a rate in force.
func (p *pace) limit(now time.Time, r rate.Limit) {
	p.bucket.SetLimitAt(now, r)
	p.bucket.SetBurstAt(now, burst(r))
}

// rateAt is the rate in force.
func (p *pace) rateAt(now time.Time) rate.Limit {
	if p.cut.IsZero() {
		return p.full
	}
	since, near := now.Sub(p.cut), max(p.low, nearly*p.top)
	if since < regain {
		return min(p.full, p.low+(near-p.low)*rate.Limit(since.Seconds()/regain.Seconds()))
	}
	return min(p.full, near*rate.Limit(math.Exp2((since-regain).Seconds()/doubling.Seconds())))
}

// wait is how long until a call may be made: 0 if now.
func (p *pace) wait(now time.Time) time.Duration {
	if p == nil {
		return 0
	}
	r := p.rateAt(now)
	if r != p.bucket.Limit() {
		p.limit(now, r)
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

// throttled cuts the rate. A burst of refusals to calls that were all made at
// the old rate cuts it once, and what was saved up for a burst is gone: calls
// at the old pace would be taken for calls at the new one.
func (p *pace) throttled(started, now time.Time) {
	if !p.cut.IsZero() && started.Before(p.cut) {
		return
	}
	p.top = p.rateAt(now)
	p.low = max(cutTo*p.top, p.full/deepest)
	p.cut = now
	p.limit(now, p.low)
	p.bucket.AllowN(now, int(p.bucket.TokensAt(now)))
}
