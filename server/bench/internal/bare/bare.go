// Package bare is what a broker is measured against: grpc-go and nothing else.
//
// It serves the same calls with the same messages over the same mutual TLS,
// answers from memory without looking at anybody, and has no interceptor, log,
// metric or storage. Whatever a broker costs more is the broker's own.
package bare

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/process"
)

// Config says what the server serves.
type Config struct {
	Certificate tls.Certificate
	Clients     *x509.CertPool
	// Welcome and Credential are messages of StreamCredentials as a broker
	// sent them, in protobuf.
	Welcome, Credential []byte
}

type (
	call     = grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]
	response = stokerv1.StreamCredentialsResponse
)

// Server is a bare server.
type Server struct {
	stokerv1.UnimplementedCredentialServiceServer
	welcome, credential *response

	mu    sync.Mutex
	calls map[call]struct{}
}

// Run serves on a loopback address until in ends or ctx does. Beside those of
// every child it obeys the commands push, which sends a credential on every
// stream, and end, which ends every stream.
func Run(ctx context.Context, c Config, in io.Reader, out io.Writer) error {
	s := &Server{welcome: &response{}, credential: &response{}, calls: map[call]struct{}{}}
	if err := errors.Join(proto.Unmarshal(c.Welcome, s.welcome), proto.Unmarshal(c.Credential, s.credential)); err != nil {
		return fmt.Errorf("the messages to send: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{c.Certificate}, ClientCAs: c.Clients, ClientAuth: tls.RequireAndVerifyClientCert,
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{"h2"},
		})),
		// What saves memory and pings without any code.
		grpc.ReadBufferSize(0), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
	)
	stokerv1.RegisterCredentialServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = process.Obey(ctx, in, out, process.Ready{Address: listener.Addr().String()}, map[string]process.Command{
		"push": func(context.Context, string) (string, error) { return s.push() },
		"end":  func(context.Context, string) (string, error) { return s.end() },
	})
	server.Stop()
	return errors.Join(err, <-served)
}

const window = 64 << 10

// StreamCredentials welcomes whoever subscribes, and reads on.
func (s *Server) StreamCredentials(c call) error {
	if _, err := c.Recv(); err != nil {
		return err
	}
	if err := c.Send(s.welcome); err != nil {
		return err
	}
	s.mu.Lock()
	s.calls[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.calls, c)
	}()
	for {
		if _, err := c.Recv(); err != nil {
			return err
		}
	}
}

// GetCredentials answers from memory.
func (s *Server) GetCredentials(context.Context, *stokerv1.GetCredentialsRequest) (*stokerv1.GetCredentialsResponse, error) {
	return &stokerv1.GetCredentialsResponse{Credentials: []*stokerv1.Credential{s.credential.GetCredential()}}, nil
}

// each has one worker a core go through all streams.
func (s *Server) each(do func(call) error) (string, error) {
	s.mu.Lock()
	all := make(chan call, len(s.calls))
	for c := range s.calls {
		all <- c
	}
	s.mu.Unlock()
	n := len(all)
	close(all)
	var workers sync.WaitGroup
	errs := make(chan error, n+1)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for c := range all {
				if err := do(c); err != nil {
					errs <- err
				}
			}
		})
	}
	workers.Wait()
	errs <- nil
	return fmt.Sprint(n), <-errs
}

func (s *Server) push() (string, error) {
	return s.each(func(c call) error { return c.Send(s.credential) })
}

// finisher is how a call can be ended from outside of its handler.
type finisher interface {
	WriteStatus(*status.Status) error
}

func (s *Server) end() (string, error) {
	over := status.New(codes.PermissionDenied, "it is over")
	return s.each(func(c call) error {
		f, ok := grpc.ServerTransportStreamFromContext(c.Context()).(finisher)
		if !ok {
			return errors.New("grpc cannot end a call from outside")
		}
		return f.WriteStatus(over)
	})
}
