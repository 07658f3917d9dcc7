package light_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/stokerd/stoker/internal/loopback"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/light"
	"github.com/stokerd/stoker/server/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	streamPath = stokerv1.CredentialService_StreamCredentials_FullMethodName
	unaryPath  = stokerv1.CredentialService_GetCredentials_FullMethodName
)

// echo answers each acknowledgement with a credential of that id.
type echo struct {
	stokerv1.UnimplementedCredentialServiceServer
}

func (echo) StreamCredentials(call grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]) error {
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		id := m.GetAcknowledge().GetCredentialId()
		if id == "end" {
			st, err := status.New(codes.ResourceExhausted, "too much: 100 %").WithDetails(durationpb.New(time.Minute))
			if err != nil {
				return err
			}
			return st.Err()
		}
		if err := call.Send(credential(id)); err != nil {
			return err
		}
	}
}

func (echo) GetCredentials(ctx context.Context, r *stokerv1.GetCredentialsRequest) (*stokerv1.GetCredentialsResponse, error) {
	from, _ := peer.FromContext(ctx)
	login := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(login) == 0 {
		return nil, status.Error(codes.Unauthenticated, "who?")
	}
	return &stokerv1.GetCredentialsResponse{Credentials: []*stokerv1.Credential{{Id: login[0] + " " + from.Addr.String()}}}, nil
}

func credential(id string) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Credential{Credential: &stokerv1.Credential{Id: id}}}
}

func acknowledge(t *testing.T, id string) []byte {
	t.Helper()
	b, err := proto.Marshal(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
		Acknowledge: &stokerv1.Acknowledge{CredentialId: id},
	}})
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// identities makes an agent that trusts a server, and that server.
func identities(t *testing.T) (agent light.Target, server *tls.Config) {
	t.Helper()
	authority, err := pki.NewAuthority("bench.example", nil)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())
	pair := func(sign func(crypto.PublicKey) (*x509.Certificate, error)) []tls.Certificate {
		made, err := pki.NewPair(sign)
		must(t, err)
		return []tls.Certificate{made}
	}
	agent = light.Target{Authority: "localhost", TLS: &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		Certificates: pair(func(key crypto.PublicKey) (*x509.Certificate, error) {
			return authority.SignAgent(key, "acme", "a", time.Hour)
		}),
	}}
	return agent, &tls.Config{
		ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		Certificates: pair(func(key crypto.PublicKey) (*x509.Certificate, error) {
			return authority.SignServer(key, []string{"localhost"}, nil, time.Hour)
		}),
	}
}

// serve starts a real gRPC server and says how to reach it.
func serve(t *testing.T, options ...grpc.ServerOption) light.Target {
	t.Helper()
	to, config := identities(t)
	server := grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(config)))...)
	stokerv1.RegisterCredentialServiceServer(server, echo{})
	to.Address = loopback.Serve(t, server)
	return to
}

// inbox keeps what a handler is told.
type inbox struct {
	messages chan string
	ended    chan light.Status
	closed   chan error
}

func newInbox() inbox {
	return inbox{make(chan string, 1000), make(chan light.Status, 100), make(chan error, 1)}
}

func (i inbox) Message(_ uint32, b []byte) {
	m := &stokerv1.StreamCredentialsResponse{}
	if err := proto.Unmarshal(b, m); err != nil {
		i.messages <- err.Error()
		return
	}
	i.messages <- m.GetCredential().GetId()
}
func (i inbox) Ended(_ uint32, s light.Status) { i.ended <- s }
func (i inbox) Closed(err error)               { i.closed <- err }

// next waits for a message.
func (i inbox) next(t *testing.T) string {
	t.Helper()
	select {
	case m := <-i.messages:
		return m
	case s := <-i.ended:
		t.Fatalf("the call ended with %d %q", s.Code, s.Message)
	case err := <-i.closed:
		t.Fatalf("the connection ended with %v", err)
	}
	return ""
}

func dial(t *testing.T, to light.Target, h light.Handler) *light.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := light.Dial(ctx, to, h)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestStream(t *testing.T) {
	in := newInbox()
	c := dial(t, serve(t), in)
	// Longer than a frame, and together longer than both windows.
	long := strings.Repeat("x", 40<<10)
	id, err := c.Begin(streamPath, nil, acknowledge(t, "first"), false)
	must(t, err)
	if got := in.next(t); got != "first" {
		t.Fatalf("got %q", got)
	}
	for n := range 20 {
		want := fmt.Sprint(n, long)
		must(t, c.Send(id, acknowledge(t, want)))
		if got := in.next(t); got != want {
			t.Fatalf("message %d has %d bytes, %.20q...", n, len(got), got)
		}
	}
	must(t, c.Send(id, acknowledge(t, "end")))
	s := <-in.ended
	var details statuspb.Status
	must(t, proto.Unmarshal(s.Details, &details))
	if s.Code != int(codes.ResourceExhausted) || s.Message != "too much: 100 %" || len(details.GetDetails()) != 1 {
		t.Errorf("ended with %d %q, %v", s.Code, s.Message, details.GetDetails())
	}
	if err := c.Send(id, nil); err == nil {
		t.Error("a call that has ended takes messages")
	}
	c.Close()
	if err := <-in.closed; err == nil {
		t.Error("the connection ended without a word")
	}
	if _, err := c.Begin(streamPath, nil, nil, false); !errors.Is(err, light.ErrClosed) {
		t.Errorf("a call on a closed connection: %v", err)
	}
}

// loop makes one unary call after the other from its own handler.
type loop struct {
	inbox
	begin func()
	left  int
	last  string
}

func (l *loop) Message(_ uint32, b []byte) {
	m := &stokerv1.GetCredentialsResponse{}
	if err := proto.Unmarshal(b, m); err == nil && len(m.GetCredentials()) == 1 {
		l.last = m.GetCredentials()[0].GetId()
	}
}

func (l *loop) Ended(id uint32, s light.Status) {
	if l.left--; l.left > 0 && s.Code == 0 {
		l.begin()
		return
	}
	l.inbox.Ended(id, s)
}

func TestUnaryCallsFromAnAddressOfItsOwn(t *testing.T) {
	to := serve(t)
	to.Source = netip.MustParseAddr("127.3.4.5")
	l := &loop{inbox: newInbox(), left: 5000}
	ready := make(chan struct{})
	var c *light.Conn
	l.begin = func() {
		<-ready
		if _, err := c.Begin(unaryPath, []light.Header{{"authorization", "me"}}, nil, true); err != nil {
			t.Error(err)
		}
	}
	c = dial(t, to, l)
	close(ready)
	l.begin()
	if s := <-l.ended; s.Code != 0 {
		t.Errorf("ended with %d %q, %d calls left", s.Code, s.Message, l.left)
	}
	if !strings.HasPrefix(l.last, "me 127.3.4.5:") {
		t.Errorf("the server saw %q", l.last)
	}
}

func TestRefusedBeforeAnyMessage(t *testing.T) {
	in := newInbox()
	c := dial(t, serve(t), in)
	_, err := c.Begin(unaryPath, nil, nil, true)
	must(t, err)
	if s := <-in.ended; s.Code != int(codes.Unauthenticated) || s.Message != "who?" {
		t.Errorf("ended with %d %q", s.Code, s.Message)
	}
}

// framed starts a server that speaks bare HTTP/2 frames on its one connection.
func framed(t *testing.T, speak func(*http2.Framer) error) light.Target {
	t.Helper()
	to, config := identities(t)
	config.NextProtos = []string{"h2"}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	must(t, err)
	to.Address = listener.Addr().String()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			done <- err
			return
		}
		framer := http2.NewFramer(conn, conn)
		if err := framer.WriteSettings(); err != nil {
			done <- err
			return
		}
		done <- speak(framer)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return to
}

// until reads frames until one of the kind.
func until(f *http2.Framer, kind http2.FrameType, accept func(http2.Frame) bool) error {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		if frame.Header().Type == kind && accept(frame) {
			return nil
		}
	}
}

func TestServersPingsAreAnswered(t *testing.T) {
	in := newInbox()
	dial(t, framed(t, func(f *http2.Framer) error {
		data := [8]byte{1, 2, 3}
		if err := f.WritePing(false, data); err != nil {
			return err
		}
		return until(f, http2.FramePing, func(answer http2.Frame) bool {
			ping, ok := answer.(*http2.PingFrame)
			return ok && ping.IsAck() && ping.Data == data
		})
	}), in)
	if err := <-in.closed; !errors.Is(err, io.EOF) {
		t.Errorf("closed with %v", err)
	}
}

func TestCallsThatBreakOff(t *testing.T) {
	for what, answer := range map[string]func(*http2.Framer) error{
		"reset":             func(f *http2.Framer) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) },
		"end without words": func(f *http2.Framer) error { return f.WriteData(1, true, nil) },
	} {
		t.Run(what, func(t *testing.T) {
			in := newInbox()
			c := dial(t, framed(t, func(f *http2.Framer) error {
				if err := until(f, http2.FrameHeaders, func(http2.Frame) bool { return true }); err != nil {
					return err
				}
				return answer(f)
			}), in)
			_, err := c.Begin(streamPath, nil, nil, false)
			must(t, err)
			if s := <-in.ended; s.Code != light.Unset || s.Message == "" {
				t.Errorf("ended with %d %q", s.Code, s.Message)
			}
		})
	}
}

func TestMessagesThatNobodyShouldSend(t *testing.T) {
	for what, prefix := range map[string][]byte{
		"compressed": {1, 0, 0, 0, 1, 0},
		"endless":    {0, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(what, func(t *testing.T) {
			in := newInbox()
			c := dial(t, framed(t, func(f *http2.Framer) error {
				if err := until(f, http2.FrameHeaders, func(http2.Frame) bool { return true }); err != nil {
					return err
				}
				return f.WriteData(1, false, prefix)
			}), in)
			_, err := c.Begin(streamPath, nil, nil, false)
			must(t, err)
			if err := <-in.closed; err == nil || errors.Is(err, io.EOF) {
				t.Errorf("closed with %v", err)
			}
		})
	}
}

func TestAbandonedConnectionsEnd(t *testing.T) {
	in := newInbox()
	c := dial(t, serve(t), in)
	_, err := c.Begin(streamPath, nil, acknowledge(t, "first"), false)
	must(t, err)
	in.next(t)
	c.Abandon()
	if err := <-in.closed; err == nil {
		t.Error("it ended without an error")
	}
}

func TestAWindowThatIsNotReadIsAnError(t *testing.T) {
	// The call is refused at once, so nobody reads what follows.
	in := newInbox()
	c := dial(t, serve(t, grpc.InitialWindowSize(64<<10), grpc.StreamInterceptor(func(_ any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
		<-ss.Context().Done()
		return ss.Context().Err()
	})), in)
	id, err := c.Begin(streamPath, nil, nil, false)
	must(t, err)
	for range 100 {
		if err = c.Send(id, make([]byte, 1000)); err != nil {
			break
		}
	}
	if !errors.Is(err, light.ErrWindow) {
		t.Errorf("sending without end: %v", err)
	}
}

func TestDialRefusals(t *testing.T) {
	to := serve(t)
	stranger := to
	stranger.TLS = to.TLS.Clone()
	stranger.TLS.RootCAs = x509.NewCertPool()
	if _, err := light.Dial(t.Context(), stranger, newInbox()); err == nil {
		t.Error("an unknown authority is trusted")
	}
	old := to
	old.TLS = to.TLS.Clone()
	old.TLS.NextProtos = nil
	if _, err := light.Dial(t.Context(), old, newInbox()); err == nil {
		t.Error("connected without HTTP/2")
	}
	nobody := to
	nobody.Address = "127.0.0.1:1"
	if _, err := light.Dial(t.Context(), nobody, newInbox()); err == nil {
		t.Error("connected to nobody")
	}
}
