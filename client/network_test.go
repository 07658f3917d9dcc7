package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/loopback"
	"github.com/stokerd/stoker/internal/polling"
)

// path is a network between a source and a broker, that drops connections, loses
// all that is sent, or refuses new ones.
type path struct {
	broker *clienttest.Broker

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	lost   chan struct{} // closed while nothing is lost
	refuse bool
	dials  int
	copies sync.WaitGroup
}

func newPath(broker *clienttest.Broker) *path {
	p := &path{broker: broker, open: make(map[net.Conn]struct{}), lost: make(chan struct{})}
	close(p.lost)
	return p
}

// dial connects through the path.
func (p *path) dial(ctx context.Context, _ string) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	refuse := p.refuse
	p.mu.Unlock()
	if refuse {
		return nil, errors.New("network is unreachable")
	}
	far, err := p.broker.Dial(ctx, "")
	if err != nil {
		return nil, err
	}
	near, ours := net.Pipe()
	p.carry(ours, far)
	return near, nil
}

// carry copies between two connections until one ends.
func (p *path) carry(near, far net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[near], p.open[far] = struct{}{}, struct{}{}
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		p.copies.Go(func() {
			p.copy(way[0], way[1])
			p.end(near, far)
		})
	}
}

func (p *path) copy(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		lost := p.lost
		p.mu.Unlock()
		select {
		case <-lost:
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		default: // into the hole
		}
	}
}

func (p *path) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.open, c)
		_ = c.Close()
	}
}

// drop cuts all connections.
func (p *path) drop() {
	p.mu.Lock()
	var open []net.Conn
	for c := range p.open {
		open = append(open, c)
	}
	p.mu.Unlock()
	p.end(open...)
}

// blackhole loses what is sent from now on, or carries it again. What was lost is
// lost, so connections of before are of no use.
func (p *path) blackhole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = make(chan struct{})
	if !on {
		close(p.lost)
	}
}

func (p *path) unreachable(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

func (p *path) attempts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// apart is a source with its first credential, and its broker in memory, with a
// path in between.
func apart(t *testing.T, lifetime time.Duration) (*clienttest.Broker, *path, *client.Source) {
	t.Helper()
	broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithLifetime(lifetime))
	way := newPath(broker)
	config := broker.Config()
	config.Dial = way.dial
	source := start(t, config)
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return broker, way, source
}

// TestBlackhole: half-open TCP is noticed within thirty seconds, whatever was
// going on when packets began to be lost.
func TestBlackhole(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 17 * time.Second, time.Minute, time.Hour - 31*time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, way, source := apart(t, 12*time.Hour)
				pass(after)
				way.blackhole(true)
				lost := time.Now()
				gone := make(chan time.Time, 1)
				source.Watch(func(e client.Event) {
					if e.Kind == client.EventDisconnected {
						select {
						case gone <- time.Now():
						default:
						}
					}
				})
				noticed := (<-gone).Sub(lost)
				t.Logf("noticed after %s", noticed)
				if noticed > 30*time.Second {
					t.Errorf("noticed after %s", noticed)
				}
				mustCredential(t, source, "photos") // which is good all the while
				way.blackhole(false)
				pass(2 * time.Minute)
				if !source.Status().Connected {
					t.Error("did not come back")
				}
			})
		})
	}
}

// TestUnsteadyNetwork: a network that comes and goes for a day costs no credential
// and no storm of attempts.
func TestUnsteadyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker, way, source := apart(t, 48*time.Hour)
		for round := range 60 {
			switch round % 3 {
			case 0:
				way.drop()
			case 1:
				way.unreachable(true)
				way.drop()
				pass(9 * time.Minute)
				way.unreachable(false)
			case 2:
				way.blackhole(true)
				pass(14 * time.Minute)
				way.blackhole(false)
				way.drop()
			}
			mustCredential(t, source, "photos")
			pass(2 * time.Minute)
			if !source.Status().Connected {
				t.Fatalf("round %d: it did not come back within two minutes: %v", round, source.Status().Err)
			}
		}
		if got := broker.Logins(); got > 2 {
			t.Errorf("%d logins: tokens are not used again", got)
		}
		// Nine minutes unreachable are about twenty attempts at the longest delay.
		if got := way.attempts(); got > 60*30 {
			t.Errorf("%d attempts", got)
		} else {
			t.Logf("%d attempts in 60 outages", got)
		}
	})
}

// nameServer answers all questions for addresses with the same ones, in that order.
type nameServer struct {
	conn *net.UDPConn
	done sync.WaitGroup

	mu        sync.Mutex
	addresses []string
}

func newNameServer(t *testing.T, addresses ...string) *nameServer {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{conn: conn, addresses: addresses}
	n.done.Go(n.serve)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		n.done.Wait()
	})
	return n
}

func (n *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFromUDP(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buffer[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.Additionals = true, nil
		if question := m.Questions[0]; question.Type == dnsmessage.TypeA {
			n.mu.Lock()
			for _, a := range n.addresses {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class},
					Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(a).To4())},
				})
			}
			n.mu.Unlock()
		}
		if answer, err := m.Pack(); err == nil {
			_, _ = n.conn.WriteToUDP(answer, from)
		}
	}
}

// use makes this the process's name server until the test ends.
func (n *nameServer) use(t *testing.T) {
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = before })
}

// receive gives each connection of a listener to take, in a goroutine of its own.
// When the test ends it closes the listener and waits for them.
func receive(t *testing.T, listener net.Listener, take func(net.Conn)) {
	var taking sync.WaitGroup
	taking.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taking.Go(func() { take(conn) })
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		taking.Wait()
	})
}

// relay listens on an address and passes connections on to a broker.
func relay(t *testing.T, address string, broker *clienttest.Broker) (way *path, port string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	way = newPath(broker)
	t.Cleanup(func() {
		way.drop()
		way.copies.Wait()
	})
	receive(t, listener, func(near net.Conn) {
		far, err := broker.Dial(context.Background(), "")
		if err != nil {
			way.end(near)
			return
		}
		way.carry(near, far)
	})
	_, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return way, port
}

// TestSeveralAddresses: of a name with three addresses, the first is dead; the
// next is used, and when it goes the last one.
func TestSeveralAddresses(t *testing.T) {
	newNameServer(t, "127.0.0.4", "127.0.0.2", "127.0.0.3").use(t)
	a := clienttest.New(t, clienttest.WithLifetime(20*time.Second)) // and so back within two seconds
	b := clienttest.New(t, clienttest.AsReplicaOf(a))
	_, port := relay(t, "127.0.0.2:0", a)
	relay(t, net.JoinHostPort("127.0.0.3", port), b)
	config := a.Config()
	config.Brokers = []string{net.JoinHostPort(clienttest.Host, port)}
	source := start(t, config)
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(a.Subscriptions()) != 1 || len(b.Subscriptions()) != 0 {
		t.Errorf("%d and %d streams", len(a.Subscriptions()), len(b.Subscriptions()))
	}
	a.Stop()
	eventually(t, b, "the other address", func(b *clienttest.Broker) bool { return len(b.Subscriptions()) > 0 })
}

// garbler is a server that proves to be the broker and then talks nonsense. It
// gives its address.
func garbler(t *testing.T, broker *clienttest.Broker, protocols []string, say func(net.Conn)) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{broker.ServerCertificate()}, MinVersion: tls.VersionTLS13, NextProtos: protocols, ClientAuth: tls.RequestClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, listener, func(conn net.Conn) {
		say(conn)
		_ = conn.Close()
	})
	return listener.Addr().String()
}

// TestGarbage of every layer: it is told as what it is, tried again, and takes
// nothing down.
func TestGarbageOfEveryLayer(t *testing.T) {
	http1 := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	}
	noise := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write(make([]byte, 9000))
	}
	for name, c := range map[string]struct {
		protocols []string
		say       func(net.Conn)
		says      string
	}{
		"a web server of old": {nil, http1, "ALPN"},
		"another protocol":    {[]string{"imap"}, http1, "no application protocol"},
		"HTTP/1 inside":       {[]string{"h2"}, http1, "server preface"},
		"noise inside":        {[]string{"h2"}, noise, "server preface"},
		"silence inside":      {[]string{"h2"}, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			broker := clienttest.New(t)
			config := broker.Config()
			config.Brokers = []string{garbler(t, broker, c.protocols, c.say)}
			source := start(t, config)
			failures := make(chan client.Event, 16)
			source.Watch(func(e client.Event) {
				if e.Kind == client.EventDisconnected {
					failures <- e
				}
			})
			first := <-failures
			var cause *client.Error
			if !errors.As(first.Err, &cause) || !cause.Transient || !strings.Contains(first.Err.Error(), c.says) {
				t.Errorf("it says %v", first.Err)
			}
			<-failures // and it goes on
		})
	}
}

// TestForeignService: a gRPC server that is no broker, and one whose messages are
// others than ours.
func TestForeignService(t *testing.T) {
	for name, c := range map[string]struct {
		handler grpc.StreamHandler
		says    string
	}{
		"another service":       {nil, "Unimplemented"},
		"wrong messages":        {func(_ any, s grpc.ServerStream) error { return s.SendMsg([]byte{0xff, 0xff, 0xff}) }, "unmarshal"},
		"end without a message": {func(any, grpc.ServerStream) error { return nil }, "Internal"},
	} {
		t.Run(name, func(t *testing.T) {
			broker := clienttest.New(t)
			options := []grpc.ServerOption{grpc.Creds(grpccredentials.NewTLS(&tls.Config{
				Certificates: []tls.Certificate{broker.ServerCertificate()}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
			})), grpc.ForceServerCodec(bytesCodec{})}
			if c.handler != nil {
				options = append(options, grpc.UnknownServiceHandler(c.handler))
			}
			config := broker.Config()
			config.Brokers = []string{loopback.Serve(t, grpc.NewServer(options...))}
			_, err := client.Fetch(t.Context(), config, 0)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("fetch: %v", err)
			}
			source := start(t, config)
			polling.Until(t.Context(), t, "a failure", func() bool { return source.Status().Err != nil })
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := source.Wait(ctx); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("wait: %v", err)
			}
		})
	}
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) {
	text, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not bytes")
	}
	return text, nil
}

func (bytesCodec) Unmarshal([]byte, any) error { return nil }

func (bytesCodec) Name() string { return "proto" }
