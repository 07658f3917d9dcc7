package delivery

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// requestTimeout bounds every part of a request. An answer takes
	// microseconds.
	requestTimeout = 5 * time.Second
	idleTimeout    = 30 * time.Second
	// longestHeader is far above what any SDK sends.
	longestHeader = 8 << 10
	// mostConnections bounds what consumers may keep open.
	mostConnections = 128
)

// site is an HTTP server with limits, for a handler that answers at once from
// memory to consumers that may be hostile. It owns its listener.
type site struct {
	listener net.Listener
	server   *http.Server
	crowd    *crowd
	serving  sync.WaitGroup
	failed   error          // read after serving
	open     sync.WaitGroup // connections
}

// serve starts serving. Close it when done.
func (s *site) serve(listener net.Listener, handler http.Handler, log *slog.Logger) {
	s.listener = listener
	s.crowd = newCrowd(mostConnections)
	s.server = &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            requestTimeout,
		ReadTimeout:                  requestTimeout,
		WriteTimeout:                 requestTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               longestHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:                    s.observe,
	}
	s.serving.Go(func() { s.failed = s.server.Serve(listener) })
}

// close stops serving and waits for the goroutines.
func (s *site) close() error {
	err := s.server.Close()
	s.serving.Wait()
	s.open.Wait() // the server does not
	if errors.Is(s.failed, http.ErrServerClosed) {
		return err
	}
	return errors.Join(err, s.failed)
}

// observe is the server's ConnState hook.
func (s *site) observe(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Done()
	}
	s.crowd.observe(conn, state)
}

// quiet is a logger that logs nothing, in place of none.
func quiet(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

// listenLoopback listens on a loopback address alone.
func listenLoopback(address string) (net.Listener, error) {
	if err := checkLoopback(address); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	// What "localhost" means is up to the machine's hosts file.
	if bound, ok := listener.Addr().(*net.TCPAddr); !ok || !bound.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%s is not loopback: use 127.0.0.1 or [::1]", listener.Addr()), listener.Close())
	}
	return listener, nil
}

func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("it must be host:port")
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return errors.New("credentials are served on loopback alone: use 127.0.0.1 or [::1]")
	}
	return nil
}

// checkOrigin refuses what a browser was made to send. A hostile page can
// reach a loopback address by a name of its own that resolves to it.
func (s *site) checkOrigin(r *http.Request) error {
	if !s.named(r.Host) {
		return Refusal{status: http.StatusForbidden, Code: "HOST_FOREIGN", Message: "the Host header does not name this endpoint"}
	}
	// No SDK sends these; every browser does for a request of a page.
	if from := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || (from != "" && from != "none") {
		return Refusal{status: http.StatusForbidden, Code: "ORIGIN_FOREIGN", Message: "web pages get no credentials"}
	}
	return nil
}

// named says whether a Host header names this server by an address that no
// foreign name server can answer for.
func (s *site) named(hostport string) bool {
	_, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return false
	}
	host, sent, err := net.SplitHostPort(hostport)
	if err != nil {
		host, sent = strings.Trim(hostport, "[]"), "80"
	}
	ip, err := netip.ParseAddr(host)
	return sent == port && (strings.EqualFold(host, "localhost") || (err == nil && ip.IsLoopback()))
}
