package clienttest

import (
	"net"
	"sync"
)

// gate holds up all traffic of a broker while it is shut: the other side sees an
// open connection on which nothing ever comes, as with half-open TCP.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while traffic may pass
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		g.open = make(chan struct{})
	default:
	}
}

func (g *gate) lift() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) passage() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// listener gives every connection the gate, and can drop them all.
type listener struct {
	net.Listener
	gate *gate

	mu    sync.Mutex
	conns map[*gatedConn]struct{}
}

func newListener(inner net.Listener, g *gate) *listener {
	return &listener{Listener: inner, gate: g, conns: make(map[*gatedConn]struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &gatedConn{Conn: inner, listener: l, closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	return c, nil
}

// drop closes all connections.
func (l *listener) drop() {
	l.mu.Lock()
	conns := make([]*gatedConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		// A connection that is gone already is what is wanted.
		_ = c.Close()
	}
}

type gatedConn struct {
	net.Conn
	listener *listener
	once     sync.Once
	closed   chan struct{}
}

func (c *gatedConn) pass() error {
	select {
	case <-c.listener.gate.passage():
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

// Read implements net.Conn. What arrives while the gate is shut stays here.
func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if blocked := c.pass(); blocked != nil {
		return 0, blocked
	}
	return n, err
}

// Write implements net.Conn.
func (c *gatedConn) Write(b []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		c.listener.mu.Lock()
		delete(c.listener.conns, c)
		c.listener.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}
