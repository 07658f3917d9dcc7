package devsts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Server is an STS that listens on the loopback interface.
type Server struct {
	*STS
	url    string
	http   *http.Server
	served chan error
}

// Start makes the service and listens at Config.Addr. Close ends it.
func Start(c Config) (*Server, error) {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	// Development keys open development data, but that is no reason to offer
	// them to the network.
	addr, err := netip.ParseAddrPort(c.Addr)
	if err != nil || !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("dev STS: address %q is not a loopback IP address and port such as 127.0.0.1:4577", c.Addr)
	}
	service, err := New(c)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("dev STS: %w", err)
	}
	s := &Server{
		STS: service,
		url: "http://" + listener.Addr().String(),
		http: &http.Server{
			Handler:           service,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(service.config.Logger.Handler(), slog.LevelWarn),
		},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// URL is the endpoint to configure in a client.
func (s *Server) URL() string { return s.url }

// Close stops listening, ends calls that a fault holds, gives the others a
// second, and waits for the end. It may be called once.
func (s *Server) Close() error {
	s.STS.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
