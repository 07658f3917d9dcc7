package enrollment

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/stokerd/stoker/server/internal/reason"
)

// maxLimited bounds how many callers are told apart.
const maxLimited = 10_000

// limits gives each caller a token bucket of its own.
type limits struct {
	every time.Duration
	burst int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

func newLimits(every time.Duration, burst int) *limits {
	return &limits{every: every, burst: burst, callers: map[string]*rate.Limiter{}}
}

// take uses one token of the caller's, or says how long to wait.
func (l *limits) take(caller, who string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket, ok := l.callers[caller]
	if !ok {
		if len(l.callers) >= maxLimited {
			l.sweep()
		}
		bucket = rate.NewLimiter(rate.Every(l.every), l.burst)
		l.callers[caller] = bucket
	}
	if bucket.Allow() {
		return nil
	}
	wait := time.Duration((1 - bucket.Tokens()) * float64(l.every))
	return reason.New(reason.RateLimited, "too many requests from %s; wait as told", who).After(max(wait, time.Millisecond))
}

// sweep forgets the callers whose buckets are full again: they lose nothing by
// it. If all are busy, one is forgotten, so that newcomers are never shut out
// by a crowd.
func (l *limits) sweep() {
	for caller, bucket := range l.callers {
		if bucket.Tokens() >= float64(l.burst) {
			delete(l.callers, caller)
		}
	}
	for caller := range l.callers {
		if len(l.callers) < maxLimited {
			return
		}
		delete(l.callers, caller)
	}
}
