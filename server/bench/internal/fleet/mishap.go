package fleet

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/light"
)

// some gives so many agents of a group, chosen at random; fewer where it has
// fewer.
func (f *Fleet) some(group, n int) []*agent {
	var chosen []*agent
	for _, i := range rand.Perm(len(f.agents)) {
		if len(chosen) == n {
			break
		}
		if a := f.agents[i]; a.who().Group == group {
			chosen = append(chosen, a)
		}
	}
	return chosen
}

// Drop closes the connections of so many agents of a group.
func (f *Fleet) Drop(group, n int) {
	for _, a := range f.some(group, n) {
		a.hangUp()
	}
}

// again makes a change of the agent, under its lock, and has it connect again.
func (a *agent) again(change func()) {
	a.mu.Lock()
	change()
	a.mu.Unlock()
	a.hangUp()
}

// Deafen has so many agents of a group read next to nothing of their next
// stream, for which they connect again, until they give it up after the time.
func (f *Fleet) Deafen(group, n int, until time.Duration) {
	for _, a := range f.some(group, n) {
		a.again(func() { a.deaf = true })
		time.AfterFunc(until, a.hearAgain)
	}
}

// hearAgain ends a stream that is not read.
func (a *agent) hearAgain() {
	a.mu.Lock()
	a.deaf = false
	deaf := a.link != nil && a.link.deaf
	a.mu.Unlock()
	if deaf {
		a.hangUp()
	}
}

// Skew sets the clocks of so many agents of a group wrong, and has them connect
// again: what they say of the credential that they hold is wrong by as much.
func (f *Fleet) Skew(group, n int, by time.Duration) {
	for _, a := range f.some(group, n) {
		a.again(func() { a.skew = by })
	}
}

// Vanish has so many connected agents of a group disappear without a word, as
// when a network is unplugged, and come back on other connections. The old ones
// stay half open until the broker has given them up or the time is over.
func (f *Fleet) Vanish(group, n int, keep time.Duration) error {
	for _, a := range f.some(group, n) {
		a.mu.Lock()
		l := a.link
		var conn *light.Conn
		if l != nil && !l.unwanted {
			conn = l.conn
		}
		a.mu.Unlock()
		if conn == nil {
			continue
		}
		if err := conn.Blackhole(); err != nil {
			return err
		}
		f.graves.bury(conn, keep)
		l.over("VANISHED", true)
	}
	return nil
}

// Replace gives an agent another identity, such as a renewed certificate with
// the session that was made with it. It connects again.
func (f *Fleet) Replace(index int, identity Identity) {
	a := f.agents[index]
	a.again(func() { a.identity = identity })
}

// graves are half-open connections, which are closed when their time is over.
type graves struct {
	mu    sync.Mutex
	conns map[*light.Conn]*time.Timer
}

func (g *graves) bury(c *light.Conn, keep time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = map[*light.Conn]*time.Timer{}
	}
	g.conns[c] = time.AfterFunc(keep, func() {
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
		c.Close()
	})
}

// open closes what is left.
func (g *graves) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c, timer := range g.conns {
		timer.Stop()
		c.Close()
	}
	g.conns = nil
}
