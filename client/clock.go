package client

import "time"

// skewBound is how far this machine's clock and the broker's may be apart
// before the difference is taken out of what consumers see. Below it, network
// delay and honest drift would only make the times flicker.
const skewBound = time.Minute

// reading is one look at this machine's two clocks.
type reading struct {
	wall time.Time     // no monotonic part
	up   time.Duration // monotonic, from an arbitrary start
}

// clock estimates the broker's clock from the last time that it told us. Not
// safe for concurrent use by itself.
type clock struct {
	read   func() reading
	server time.Time // what the broker said; zero: nothing so far
	at     reading   // when it said so
}

func newClock() clock {
	start := time.Now()
	return clock{read: func() reading {
		now := time.Now()
		return reading{wall: now.Round(0), up: now.Sub(start)}
	}}
}

// set anchors the clock at what the broker just said. Each heartbeat does, so
// that a stepped clock is noticed within one interval.
func (c *clock) set(server time.Time) {
	c.server, c.at = server, c.read()
}

// now is the broker's time as far as we can know. Of the two clocks the one
// that ran farther counts: the monotonic one stands still while a machine is
// suspended, and the wall clock may be set back; neither must make an expired
// credential look good.
func (c *clock) now() time.Time {
	r := c.read()
	if c.server.IsZero() {
		return r.wall
	}
	return c.server.Add(max(r.wall.Sub(c.at.wall), r.up-c.at.up))
}

// local translates a time of the broker's clock to this machine's.
func (c *clock) local(t time.Time) time.Time {
	if c.server.IsZero() {
		return t
	}
	skew := c.skew()
	if skew.Abs() <= skewBound {
		return t
	}
	return t.Add(skew)
}

// skew is how far this machine's clock is ahead of the broker's, in whole
// seconds.
func (c *clock) skew() time.Duration {
	return c.read().wall.Sub(c.now()).Round(time.Second)
}
