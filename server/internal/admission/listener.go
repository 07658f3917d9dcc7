package admission

import (
	"container/list"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Limits bound one listener. All but Reserve are required.
type Limits struct {
	// PerAddress is how many connections one address may have open, and how
	// many it may open at once.
	PerAddress int
	// PerSecond is how many connections a second one address may open in the
	// long run.
	PerSecond float64
	// Handshakes is how many connections may be in their handshake. Beyond it
	// new ones wait in the operating system's queue.
	Handshakes int
	// Patience is how long a handshake is left alone while others wait for its
	// place. A handshake takes milliseconds: whoever is slower than this then
	// is closed. On a machine that is so busy that those which succeed take long
	// as well, it is some times what they take.
	Patience time.Duration
	// Total is how many connections may be open. The last Reserve of them are
	// for whoever must get through to a full broker, and for telling the others
	// when to come back: see Spare.
	Total, Reserve int
	// Unanswered is how long what was sent may go unacknowledged before the
	// operating system gives a connection up, where it can be told (Linux).
	Unanswered time.Duration
}

func (l Limits) check() error {
	if l.PerAddress < 1 || l.PerSecond <= 0 || l.Handshakes < 1 || l.Patience <= 0 || l.Total < 1 || l.Reserve < 0 || l.Reserve >= l.Total || l.Unanswered <= 0 {
		return fmt.Errorf("admission: every limit must be above zero, and the reserve below the total: %+v", l)
	}
	return nil
}

// Cause is why a connection was refused or closed.
type Cause string

// The causes.
const (
	// CauseAddressFull: the address has as many connections as it may.
	CauseAddressFull Cause = "address_full"
	// CauseAddressRate: the address opens connections too fast.
	CauseAddressRate Cause = "address_rate"
	// CauseFull: there are as many connections as there may be.
	CauseFull Cause = "full"
	// CauseSlow: the handshake made room for others.
	CauseSlow Cause = "slow_handshake"
)

// Causes lists them all.
var Causes = []Cause{CauseAddressFull, CauseAddressRate, CauseFull, CauseSlow}

// complainEvery is how often refusals are logged.
const complainEvery = time.Minute

// Listener admits connections of another listener. It is a net.Listener whose
// Accept is for one goroutine; everything else is safe for concurrent use.
type Listener struct {
	net.Listener
	limits Limits
	log    *slog.Logger
	// freed tells Accept that a handshake ended; its one place coalesces.
	freed     chan struct{}
	closed    chan struct{}
	closeOnce sync.Once

	mu        sync.Mutex
	addresses addresses
	open      int
	// handshakes has the connections in their handshake, oldest first.
	handshakes list.List
	// usual is how long those that succeeded took of late.
	usual      time.Duration
	admitted   int64
	refused    map[Cause]int64
	complained time.Time
	unlogged   int64
}

// New makes a listener that owns the inner one.
func New(inner net.Listener, limits Limits, log *slog.Logger) (*Listener, error) {
	if err := limits.check(); err != nil {
		return nil, err
	}
	return &Listener{
		Listener: inner, limits: limits, log: log, freed: make(chan struct{}, 1), closed: make(chan struct{}),
		addresses: newAddresses(limits.PerAddress, limits.PerSecond), refused: map[Cause]int64{},
	}, nil
}

// Accept gives the next connection that may be served. Others are closed
// without a word: nothing that a stranger could count on, and no work.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if err := l.room(); err != nil {
			return nil, err
		}
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := l.admit(raw, time.Now())
		if c == nil {
			reset(raw)
			continue
		}
		if err := limitUnanswered(raw, l.limits.Unanswered); err != nil {
			// Only a connection that has ended already refuses the option.
			l.log.Debug("a connection ended at once", "error", err)
		}
		return c, nil
	}
}

// Close stops accepting. Connections that were admitted live on.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// room waits until another handshake may begin, and makes it begin in time:
// while all places are taken the oldest gives way once it is past Patience.
func (l *Listener) room() error {
	for {
		slow, wait := l.slow(time.Now())
		if slow != nil {
			reset(slow)
			continue
		}
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-l.freed:
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			return net.ErrClosed
		}
		timer.Stop()
	}
}

// slow gives the connection that has to make room, or how long to wait for
// one; neither where there is room.
func (l *Listener) slow(now time.Time) (*conn, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handshakes.Len() < l.limits.Handshakes {
		return nil, 0
	}
	oldest := l.handshakes.Front().Value.(*conn)
	if wait := oldest.since.Add(l.patience()).Sub(now); wait > 0 {
		return nil, wait
	}
	oldest.endHandshake()
	l.note(CauseSlow, now)
	return oldest, 0
}

const (
	// patienceShare is how many times as long as the others a handshake may
	// take, and patienceMost bounds it, in Limits.Patience: work that was begun
	// is not thrown away because the machine is slow.
	patienceShare, patienceMost = 4, 5
)

// patience is how long a handshake is left alone now. mu is held.
func (l *Listener) patience() time.Duration {
	return min(max(l.limits.Patience, patienceShare*l.usual), patienceMost*l.limits.Patience)
}

// admit counts the connection in, or gives nil.
func (l *Listener) admit(raw net.Conn, now time.Time) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limits.Total {
		l.note(CauseFull, now)
		return nil
	}
	network := networkOf(raw.RemoteAddr())
	if cause := l.addresses.take(network, now); cause != "" {
		l.note(cause, now)
		return nil
	}
	c := &conn{Conn: raw, listener: l, network: network, since: now, spare: l.open >= l.limits.Total-l.limits.Reserve}
	l.open++
	l.admitted++
	c.handshake = l.handshakes.PushBack(c)
	return c
}

// note counts a refusal and logs that there are some, now and then. mu is held.
func (l *Listener) note(cause Cause, now time.Time) {
	l.refused[cause]++
	l.unlogged++
	if now.Sub(l.complained) < complainEvery {
		return
	}
	l.log.Warn("connections are being refused", "listener", l.Listener.Addr().String(), "cause", cause, "refused", l.unlogged)
	l.complained, l.unlogged = now, 0
}

// Stats says how things stand.
type Stats struct {
	// Open and Handshakes are now.
	Open, Handshakes int
	// Admitted counts connections, Refused those refused or closed by cause.
	Admitted int64
	Refused  map[Cause]int64
	// Addresses is how many addresses are remembered.
	Addresses int
}

// Stats gives the counts. Refused has every cause.
func (l *Listener) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Open: l.open, Handshakes: l.handshakes.Len(), Admitted: l.admitted,
		Refused: make(map[Cause]int64, len(Causes)), Addresses: len(l.addresses.known),
	}
	for _, cause := range Causes {
		s.Refused[cause] = l.refused[cause]
	}
	return s
}

// conn is an admitted connection. Its place is free again when it is closed.
type conn struct {
	net.Conn
	listener *Listener
	network  network
	since    time.Time
	spare    bool
	// handshake is the place among the handshakes; nil once it succeeded.
	// Guarded by the listener's mu, as is gone.
	handshake *list.Element
	gone      bool
}

// Established says that the handshake on an admitted connection has succeeded.
// A connection of another origin is none of this package's business.
func Established(c net.Conn) {
	if own, ok := c.(*conn); ok {
		l := own.listener
		l.mu.Lock()
		defer l.mu.Unlock()
		if own.handshake != nil {
			l.usual += (time.Since(own.since) - l.usual) / weight
		}
		own.endHandshake()
	}
}

// Spare says whether a connection has one of the places that are kept in
// reserve: the others were taken when it came.
func Spare(c net.Conn) bool {
	own, ok := c.(*conn)
	return ok && own.spare
}

// endHandshake gives the place up. The listener's mu is held.
func (c *conn) endHandshake() {
	if c.handshake == nil {
		return
	}
	c.listener.handshakes.Remove(c.handshake)
	c.handshake = nil
	select {
	case c.listener.freed <- struct{}{}:
	default:
	}
}

// Close closes the connection and gives its places back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.gone {
		c.gone = true
		c.endHandshake()
		l.open--
		l.addresses.give(c.network, time.Now())
	}
	return err
}

// reset closes a connection so that nothing of it is kept: a plain close would
// leave the operating system waiting for the other side.
func reset(c net.Conn) {
	inner := c
	if own, ok := c.(*conn); ok {
		inner = own.Conn
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close() // it is gone either way
}
