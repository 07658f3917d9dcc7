package delivery

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// crowd bounds a server's connections by closing the one that has been quiet for
// longest. Refusing new ones instead would let anybody on the machine keep the
// tools out by opening connections and saying nothing.
type crowd struct {
	bound int

	mu    sync.Mutex
	quiet *list.List // of net.Conn, the quietest first
	conns map[net.Conn]*list.Element
}

func newCrowd(bound int) *crowd {
	return &crowd{bound: bound, quiet: list.New(), conns: make(map[net.Conn]*list.Element)}
}

// observe takes in what the server's ConnState hook tells.
func (c *crowd) observe(conn net.Conn, state http.ConnState) {
	if excess := c.move(conn, state); excess != nil {
		// Its handler, if there is one, fails to write; nothing is lost.
		_ = excess.Close()
	}
}

func (c *crowd) move(conn net.Conn, state http.ConnState) (excess net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, known := c.conns[conn]
	switch state {
	case http.StateNew:
		c.conns[conn] = c.quiet.PushBack(conn)
	case http.StateActive, http.StateIdle:
		if known {
			c.quiet.MoveToBack(element)
		}
	case http.StateClosed, http.StateHijacked:
		c.drop(conn)
	}
	if len(c.conns) <= c.bound {
		return nil
	}
	front, ok := c.quiet.Front().Value.(net.Conn)
	if !ok {
		return nil
	}
	c.drop(front)
	return front
}

func (c *crowd) drop(conn net.Conn) {
	if element, known := c.conns[conn]; known {
		c.quiet.Remove(element)
		delete(c.conns, conn)
	}
}

// size is how many connections there are.
func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}
