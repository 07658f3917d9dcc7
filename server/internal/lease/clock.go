package lease

import (
	"log/slog"
	"math"
	"sync/atomic"
	"time"
)

// instant is a point on the manager's timeline, in nanoseconds. Zero and less
// lie before the manager was made.
type instant int64

// never is an instant that does not come.
const never instant = math.MaxInt64

func (i instant) add(d time.Duration) instant { return i + instant(d) }

// since is how long i is after j.
func (i instant) since(j instant) time.Duration { return time.Duration(i - j) }

// step is how far the wall clock must move against the monotonic clock between
// two observations to count as a step. Slewing stays far below it.
const step = 2 * time.Second

// clock is the manager's timeline: the monotonic clock plus all forward steps
// of the wall clock. It never goes back. That makes what is left of a
// credential the lesser of what either clock says, with the wall clock
// compared from the moment of issue only: a wall clock that is wrong all the
// time does no harm, and one that is put right costs one early renewal.
type clock struct {
	wall  func() time.Time
	start time.Time
	// skipped is the sum of forward steps.
	skipped atomic.Int64
	// ahead is the wall clock minus the monotonic one as last observed. Only
	// the scheduler touches it.
	ahead time.Duration
}

func (c *clock) init(wall func() time.Time) {
	c.wall, c.start = wall, time.Now()
	c.ahead = c.lead()
}

// steady is the monotonic clock alone, as a time that rate.Limiter takes.
func (c *clock) steady() time.Time { return c.start.Add(time.Since(c.start)) }

// now is the present on the timeline. It begins at one second, so that zero is
// always in the past.
func (c *clock) now() instant {
	return instant(time.Second) + instant(time.Since(c.start)) + instant(c.skipped.Load())
}

func (c *clock) lead() time.Duration {
	// Round strips the monotonic reading, which would hide the very step that
	// is looked for.
	return c.wall().Round(0).Sub(c.start.Round(0)) - time.Since(c.start)
}

// observe notices a step of the wall clock and gives it.
func (c *clock) observe(log *slog.Logger) time.Duration {
	lead := c.lead()
	moved := lead - c.ahead
	c.ahead = lead
	switch {
	case moved > step:
		c.skipped.Add(int64(moved))
		log.Warn("the wall clock moved forward, or the machine slept: leases count as that much older", "by", moved)
	case moved < -step:
		log.Warn("the wall clock moved back: leases keep their renewal times", "by", -moved)
	default:
		return 0
	}
	return moved
}

// wallAt gives the wall-clock time of an instant, as far as can be told now.
func (c *clock) wallAt(i instant) time.Time { return c.wall().Add(i.since(c.now())).UTC() }
