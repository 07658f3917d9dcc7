//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
)

// proxy is an HTTP proxy that knows CONNECT, and keeps all that it is sent.
type proxy struct {
	address string
	refuse  bool

	mu       sync.Mutex
	requests []*http.Request
	passed   bytes.Buffer // what clients sent through it
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	var talks sync.WaitGroup
	talks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talks.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		talks.Wait()
	})
	return p
}

func (p *proxy) serve(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, request)
	refuse := p.refuse
	p.mu.Unlock()
	if refuse || request.Method != http.MethodConnect {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	far, err := net.Dial("tcp", request.Host)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer far.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, far)
		_ = conn.Close()
	})
	_, _ = io.Copy(io.MultiWriter(far, p), reader)
	_ = far.Close()
	back.Wait()
}

// Write keeps what passes.
func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed.Write(b)
}

// saw gives what there was since the last time.
func (p *proxy) saw() (requests []*http.Request, passed []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests, passed = p.requests, bytes.Clone(p.passed.Bytes())
	p.requests = nil
	p.passed.Reset()
	return requests, passed
}

// Through a proxy the agent speaks TLS with the broker: the proxy sees where to,
// and nothing else.
func TestProxy(t *testing.T) {
	w, p := newWorld(t), newProxy(t)
	_, port, err := net.SplitHostPort(w.broker.Address())
	if err != nil {
		t.Fatal(err)
	}
	// Loopback is never asked for through a proxy. This is an address of it that
	// the rules do not know.
	broker := "0.0.0.0:" + port
	env := []string{"STOKER_BROKER=" + broker, "STOKER_SERVER_NAME=localhost", "HTTPS_PROXY=http://user:CANARY-proxy@" + p.address}
	code, out, errs := w.run(t, env, "whoami")
	if code != 0 || !strings.Contains(out, "nightly@acme") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	requests, passed := p.saw()
	if len(requests) != 1 || requests[0].Method != http.MethodConnect || requests[0].Host != broker {
		t.Errorf("the proxy was asked %v", requests)
	}
	for name, values := range requests[0].Header {
		if name != "User-Agent" && name != "Proxy-Authorization" {
			t.Errorf("the proxy was told %s: %v", name, values)
		}
	}
	// A handshake's record, and nothing of ours in clear.
	if len(passed) < 1000 || passed[0] != 0x16 {
		t.Errorf("%d bytes passed, the first of them %#x", len(passed), passed[:1])
	}
	for _, secret := range []string{"CANARY", w.broker.Password(), "nightly", "acme", "nas-1", "authorization"} {
		if bytes.Contains(passed, []byte(secret)) {
			t.Errorf("%q passed in clear", secret)
		}
	}
	// The endpoint on loopback is nobody's business.
	r := w.start(t, append(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="), "run", "--listen", "127.0.0.1:0")
	r.line(t, "FULL_URI")
	w.wait(t, "it is well behind a proxy", func(code int, _ agent.Report) bool { return code == 0 })
	r.stop(t)
	if requests, _ := p.saw(); len(requests) != 1 {
		t.Errorf("the proxy was asked %v", requests)
	}

	code, _, errs = w.run(t, append(env, "NO_PROXY=0.0.0.0"), "whoami")
	if requests, _ := p.saw(); code != 0 || len(requests) != 0 {
		t.Errorf("with NO_PROXY: %d %s, the proxy was asked %v", code, errs, requests)
	}
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	if code, _, errs := w.run(t, env, "whoami"); code != 1 || !strings.Contains(errs, "407 Proxy Authentication Required") {
		t.Errorf("refused: %d %s", code, errs)
	}
	for _, proxy := range []string{"socks5://user:CANARY@" + p.address, "http://user:CANARY@x:y"} {
		if code, _, errs := w.run(t, append(env, "HTTPS_PROXY="+proxy), "whoami"); code != 1 || !strings.Contains(errs, "HTTPS_PROXY cannot be used") {
			t.Errorf("%s: %d %s", proxy, code, errs)
		}
	}
}
