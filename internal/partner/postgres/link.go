package postgres

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Link is a way to a server that a test can disturb. It begins undisturbed.
type Link struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu    sync.Mutex
	clear *sync.Cond // signals a change of what follows
	hung  bool
	cut   bool
	delay time.Duration
	conns map[net.Conn]struct{}
	ended bool
}

// Link makes a way to the server. It ends with the test.
func (s *Server) Link(t testing.TB) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{listener: listener, server: s.Address(), conns: map[net.Conn]struct{}{}}
	l.clear = sync.NewCond(&l.mu)
	l.running.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.set(func() { l.ended, l.cut = true, true })
		l.running.Wait()
	})
	return l
}

// DSN turns a DSN of the server into one that goes through the link.
func (l *Link) DSN(t testing.TB, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the DSN is no URL") // without its text, which holds a password
	}
	u.Host = l.listener.Addr().String()
	return u.String()
}

// Cut breaks all connections and refuses new ones.
func (l *Link) Cut() { l.set(func() { l.cut, l.hung = true, false }) }

// Hang keeps all connections, and accepts new ones, but carries nothing any
// more: as a network does that loses every packet.
func (l *Link) Hang() { l.set(func() { l.hung = true }) }

// Slow delays what is carried, in each direction.
func (l *Link) Slow(by time.Duration) { l.set(func() { l.delay = by }) }

// Restore ends all disturbances.
func (l *Link) Restore() { l.set(func() { l.cut, l.hung, l.delay = false, false, 0 }) }

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if l.cut {
		for c := range l.conns {
			_ = c.Close()
		}
		clear(l.conns)
	}
	l.clear.Broadcast()
}

func (l *Link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return // closed: the test is over
		}
		server, err := net.Dial("tcp", l.server)
		if err != nil || !l.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		l.running.Go(func() { l.carry(server, client) })
		l.running.Go(func() { l.carry(client, server) })
	}
}

// keep notes the connections, so that they can be cut.
func (l *Link) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	for _, c := range conns {
		l.conns[c] = struct{}{}
	}
	return true
}

// carry copies from one connection to the other until either ends.
func (l *Link) carry(to, from net.Conn) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range []net.Conn{to, from} {
			_ = c.Close()
			delete(l.conns, c)
		}
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if !l.pass() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
		if err != nil {
			return // io.EOF, or broken
		}
	}
}

// pass waits until something may be carried; it reports false if the link has
// ended meanwhile.
func (l *Link) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.hung && !l.ended && !l.cut {
		l.clear.Wait()
	}
	if l.delay > 0 && !l.ended {
		delay := l.delay
		l.mu.Unlock()
		<-time.After(delay)
		l.mu.Lock()
	}
	return !l.ended
}
