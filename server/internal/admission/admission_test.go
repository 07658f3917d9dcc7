package admission_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a listener whose connections the test makes.
type queue struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newQueue() *queue { return &queue{make(chan net.Conn, 10_000), make(chan struct{})} }

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { close(q.closed); return nil }
func (q *queue) Addr() net.Addr { return address("10.0.0.1:8443") }

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// end is one end of a connection that says where it is from.
type end struct {
	net.Conn
	from address
}

func (e end) RemoteAddr() net.Addr { return e.from }

// dial puts a connection into the queue and gives the client's end.
func (q *queue) dial(from string) net.Conn {
	server, client := net.Pipe()
	q.conns <- end{server, address(from)}
	return client
}

// generous are limits that no test meets unless it changes them.
func generous() admission.Limits {
	return admission.Limits{PerAddress: 1000, PerSecond: 1000, Handshakes: 1000, Patience: time.Second, Total: 10_000, Unanswered: time.Second}
}

// serve accepts as gRPC does, until the test ends. What was admitted comes on
// the channel.
func serve(t *testing.T, q *queue, limits admission.Limits) (*admission.Listener, <-chan net.Conn) {
	t.Helper()
	l, err := admission.New(q, limits, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	admitted, ended := make(chan net.Conn, 10_000), make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			admitted <- c
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ended with %v", err)
		}
	})
	return l, admitted
}

// shut says whether the broker closed the connection, without waiting.
func shut(t *testing.T, client net.Conn) bool {
	t.Helper()
	if err := client.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return true // a pipe that is closed
	}
	_, err := client.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

func TestConnectionsOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.PerAddress, limits.PerSecond = 3, 1
		q := newQueue()
		l, admitted := serve(t, q, limits)
		for i := range 5 {
			q.dial(fmt.Sprintf("192.0.2.7:%d", 1000+i))
		}
		other := q.dial("192.0.2.8:1")
		synctest.Wait()
		if n := len(admitted); n != 4 || l.Stats().Refused[admission.CauseAddressFull] != 2 || shut(t, other) {
			t.Fatalf("%d admitted, %+v", n, l.Stats())
		}
		// A place that is given back is not to be had at once: the address has
		// used up what it may open at once.
		first := <-admitted
		_ = first.Close()
		_ = first.Close() // again is nothing
		q.dial("192.0.2.7:2000")
		synctest.Wait()
		if s := l.Stats(); s.Open != 3 || s.Refused[admission.CauseAddressRate] != 1 {
			t.Fatalf("%+v", s)
		}
		<-time.After(time.Second)
		again := q.dial("192.0.2.7:2001")
		synctest.Wait()
		if s := l.Stats(); s.Open != 4 || shut(t, again) || s.Admitted != 5 {
			t.Fatalf("%+v", s)
		}
		for len(admitted) > 0 {
			_ = (<-admitted).Close()
		}
		if s := l.Stats(); s.Open != 0 || s.Handshakes != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRateOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.PerAddress, limits.PerSecond = 10, 2
		q := newQueue()
		l, admitted := serve(t, q, limits)
		open := func(n int) {
			for range n {
				q.dial("192.0.2.7:1")
				synctest.Wait()
				for len(admitted) > 0 {
					_ = (<-admitted).Close()
				}
			}
		}
		open(15)
		if s := l.Stats(); s.Admitted != 10 || s.Refused[admission.CauseAddressRate] != 5 {
			t.Fatalf("%+v", s)
		}
		// Over a minute: two a second, however hard it tries.
		for range 600 {
			<-time.After(100 * time.Millisecond)
			open(1)
		}
		if s := l.Stats(); s.Admitted != 10+120 {
			t.Errorf("%d in a minute", s.Admitted-10)
		}
		// Rested, it may open as many at once as before.
		<-time.After(10 * time.Second)
		open(12)
		if s := l.Stats(); s.Admitted != 10+120+10 {
			t.Errorf("%+v", s)
		}
	})
}

// What counts as one address.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		one, other string
		same       bool
	}{
		{"192.0.2.7:1", "192.0.2.7:2", true},
		{"192.0.2.7:1", "192.0.2.8:1", false},
		{"192.0.2.7:1", "[::ffff:192.0.2.7]:1", true},
		{"[2001:db8::1]:1", "[2001:db8::2]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::1%eth1]:1", true},
		{"@", "/run/other.sock", true},
		{"@", "192.0.2.7:1", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			limits := generous()
			limits.PerAddress = 1
			q := newQueue()
			l, admitted := serve(t, q, limits)
			q.dial(c.one)
			q.dial(c.other)
			synctest.Wait()
			if refused := l.Stats().Refused[admission.CauseAddressFull] == 1; refused != c.same {
				t.Errorf("%s and %s: the same %v", c.one, c.other, refused)
			}
			for len(admitted) > 0 {
				_ = (<-admitted).Close()
			}
		})
	}
}

// Handshakes that take long give way to others, as soon as there are others and
// not before.
func TestSlowHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.Handshakes = 2
		q := newQueue()
		l, admitted := serve(t, q, limits)
		begin := time.Now()
		slow, quick := q.dial("192.0.2.1:1"), q.dial("192.0.2.2:1")
		synctest.Wait()
		<-admitted
		established := <-admitted
		<-time.After(700 * time.Millisecond)
		if shut(t, slow) || shut(t, quick) {
			t.Fatal("closed although nobody waits")
		}
		// A third waits in the queue.
		third := q.dial("192.0.2.3:1")
		synctest.Wait()
		if s := l.Stats(); s.Open != 2 || len(admitted) != 0 {
			t.Fatalf("%+v", s)
		}
		// It gets the place of one that succeeds.
		admission.Established(established)
		synctest.Wait()
		if s := l.Stats(); s.Open != 3 || s.Handshakes != 2 || len(admitted) != 1 {
			t.Fatalf("%+v", s)
		}
		// A fourth gets that of the first, once its time is up.
		fourth := q.dial("192.0.2.4:1")
		(<-admitted).Close()
		synctest.Wait()
		<-admitted
		fifth := q.dial("192.0.2.5:1")
		synctest.Wait()
		last := <-admitted
		if !shut(t, slow) || time.Since(begin) < time.Second {
			t.Errorf("after %s: %+v", time.Since(begin), l.Stats())
		}
		if s := l.Stats(); s.Refused[admission.CauseSlow] != 1 || shut(t, quick) || shut(t, fourth) || shut(t, fifth) || !shut(t, third) {
			t.Errorf("%+v", s)
		}
		admission.Established(last)
		admission.Established(last) // again is nothing
		if s := l.Stats(); s.Handshakes != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAllConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.Total = 3
		q := newQueue()
		l, admitted := serve(t, q, limits)
		for i := range 5 {
			q.dial(fmt.Sprintf("192.0.2.%d:1", i))
		}
		synctest.Wait()
		if s := l.Stats(); s.Open != 3 || s.Refused[admission.CauseFull] != 2 {
			t.Fatalf("%+v", s)
		}
		_ = (<-admitted).Close()
		after := q.dial("192.0.2.9:1")
		synctest.Wait()
		if shut(t, after) {
			t.Error("refused although one has left")
		}
	})
}

// Strangers cannot make the broker remember without end.
func TestMemoryOfStrangersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.PerAddress, limits.PerSecond, limits.Total = 10, 0.001, 10
		q := newQueue()
		l, admitted := serve(t, q, limits)
		most := 0
		kept := q.dial("203.0.113.1:1")
		synctest.Wait()
		<-admitted
		for i := range 100_000 {
			q.dial(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
			(<-admitted).Close()
			most = max(most, l.Stats().Addresses)
		}
		if most > 2*(32_768+1)+1024 {
			t.Errorf("%d addresses were remembered", most)
		}
		if s := l.Stats(); s.Open != 1 || shut(t, kept) {
			t.Errorf("%+v", s)
		}
	})
}

func TestClosingWhileAllHandshakesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.Handshakes, limits.Patience = 1, time.Hour
		q := newQueue()
		_, admitted := serve(t, q, limits) // its cleanup closes and waits for Accept
		q.dial("192.0.2.1:1")
		q.dial("192.0.2.2:1")
		synctest.Wait()
		if len(admitted) != 1 {
			t.Errorf("%d admitted", len(admitted))
		}
	})
}

func TestLimitsMustBeSet(t *testing.T) {
	for i, change := range []func(*admission.Limits){
		func(l *admission.Limits) { l.PerAddress = 0 }, func(l *admission.Limits) { l.PerSecond = 0 },
		func(l *admission.Limits) { l.Handshakes = 0 }, func(l *admission.Limits) { l.Patience = 0 },
		func(l *admission.Limits) { l.Total = -1 }, func(l *admission.Limits) { l.Unanswered = 0 },
	} {
		limits := generous()
		change(&limits)
		if _, err := admission.New(newQueue(), limits, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%d: %+v was taken", i, limits)
		}
	}
}

// A machine on which every handshake takes long gives each the time that it
// takes: what was begun is not thrown away.
func TestPatienceFollowsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.Handshakes, limits.Patience = 2, time.Second
		q := newQueue()
		l, admitted := serve(t, q, limits)
		for i := range 100 {
			q.dial(fmt.Sprintf("192.0.2.1:%d", i))
			c := <-admitted
			<-time.After(700 * time.Millisecond)
			admission.Established(c)
		}
		for i := range 3 {
			q.dial(fmt.Sprintf("192.0.2.2:%d", i))
		}
		first := <-admitted
		<-admitted
		<-time.After(2 * time.Second)
		if n := l.Stats().Refused[admission.CauseSlow]; n != 0 {
			t.Errorf("%d gave way although no handshake is faster", n)
		}
		admission.Established(first)
		admission.Established(<-admitted)
		q.dial("192.0.2.3:1")
		q.dial("192.0.2.3:2")
		<-time.After(4 * time.Second)
		if n := l.Stats().Refused[admission.CauseSlow]; n == 0 {
			t.Error("nobody gave way to those that wait")
		}
	})
}

// The last places are told apart, and come back.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := generous()
		limits.Total, limits.Reserve = 5, 2
		q := newQueue()
		l, admitted := serve(t, q, limits)
		var conns []net.Conn
		for i := range 6 {
			q.dial(fmt.Sprintf("192.0.2.%d:1", i))
			synctest.Wait()
			if i == 5 {
				break
			}
			c := <-admitted
			conns = append(conns, c)
			if spare := admission.Spare(c); spare != (i >= 3) {
				t.Errorf("connection %d: spare is %v", i+1, spare)
			}
		}
		if n := l.Stats().Refused[admission.CauseFull]; n != 1 || len(admitted) != 0 {
			t.Errorf("%d were refused, %d admitted beyond the total", n, len(admitted))
		}
		for _, c := range conns[:3] {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		q.dial("192.0.2.9:1")
		if admission.Spare(<-admitted) {
			t.Error("there is room, and the next one is in the reserve")
		}
		if bare, _ := net.Pipe(); admission.Spare(bare) {
			t.Error("a connection of another origin is in the reserve")
		}
	})
}

// Over a real socket a refused connection is reset at once.
func TestRefusalIsAReset(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limits := generous()
	limits.PerAddress = 1
	l, err := admission.New(inner, limits, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
		}
	}()
	for i := range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if i == 1 && errors.Is(err, syscall.ECONNRESET) {
			break // it was reset before the dialer looked
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i == 0 {
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1))
		if timeout, ok := errors.AsType[net.Error](err); err == nil || ok && timeout.Timeout() {
			t.Errorf("the refused connection reads %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
