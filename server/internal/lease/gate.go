package lease

import (
	"math/rand/v2"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

const (
	// tolerance is how many leases in a row must fail before the account
	// counts as down. One lease that cannot be issued says nothing about the
	// others.
	tolerance = 3
	// A closed gate lets one call through after firstProbe, then after twice
	// that, at most lastProbe.
	firstProbe = time.Second
	lastProbe  = 5 * time.Second
)

// gate keeps leases from trying one after the other what fails for all. While
// STS is away, or the audit trail, due leases wait in their order and only a
// probe goes out now and then, always the most urgent one. When one gets an
// answer the gate opens and the queue moves, earliest expiry first.
type gate struct {
	failures int
	last     *lease
	closed   bool
	cause    *reason.Error
	interval time.Duration
	probeAt  instant
}

// failed counts a failure of the account and says whether the gate is closed.
func (g *gate) failed(l *lease, cause *reason.Error, now instant) bool {
	if l != g.last {
		g.failures++
	}
	g.last = l
	if g.failures < tolerance {
		return false
	}
	if !g.closed {
		g.closed, g.interval = true, firstProbe
	} else {
		g.interval = min(2*g.interval, lastProbe)
	}
	g.cause = cause
	g.schedule(now)
	return true
}

// answered notes that the account works and says whether that opened the gate.
func (g *gate) answered() bool {
	opened := g.closed
	*g = gate{}
	return opened
}

// schedule sets the next probe. A probe that hangs does not hold up the next.
func (g *gate) schedule(now instant) {
	g.probeAt = now.add(time.Duration((0.5 + rand.Float64()/2) * float64(g.interval)))
}

// wait is how long until a call may be made: 0 if now.
func (g *gate) wait(now instant) time.Duration {
	if !g.closed {
		return 0
	}
	return max(0, g.probeAt.since(now))
}
