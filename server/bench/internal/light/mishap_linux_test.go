package light_test

import (
	"strings"
	"testing"
	"time"
)

// silent checks that nothing comes for a while.
func (i inbox) silent(t *testing.T) {
	t.Helper()
	select {
	case m := <-i.messages:
		t.Errorf("%.20q came", m)
	case s := <-i.ended:
		t.Errorf("the call ended with %d %q", s.Code, s.Message)
	case err := <-i.closed:
		t.Errorf("the connection ended with %v", err)
	case <-time.After(100 * time.Millisecond):
	}
}

// What a deaf client is sent fills its window and no more.
func TestDeaf(t *testing.T) {
	in, to := newInbox(), serve(t)
	to.Deaf = true
	c := dial(t, to, in)
	id, err := c.Begin(streamPath, nil, acknowledge(t, "short"), false)
	must(t, err)
	if got := in.next(t); got != "short" {
		t.Fatalf("got %q", got)
	}
	must(t, c.Send(id, acknowledge(t, strings.Repeat("x", 1200))))
	in.silent(t)
}

// A half-open connection takes what it is given and brings nothing any more,
// and neither end is told.
func TestBlackhole(t *testing.T) {
	in := newInbox()
	c := dial(t, serve(t), in)
	id, err := c.Begin(streamPath, nil, acknowledge(t, "before"), false)
	must(t, err)
	if got := in.next(t); got != "before" {
		t.Fatalf("got %q", got)
	}
	must(t, c.Blackhole())
	must(t, c.Send(id, acknowledge(t, "after")))
	in.silent(t)
}
