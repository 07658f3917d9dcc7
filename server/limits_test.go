package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// from dials as a client of another loopback address.
func from(t *testing.T, source, address string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	return d.DialContext(t.Context(), "tcp", address)
}

// greeted opens a connection up to the broker's first HTTP/2 frame, or gives
// why it could not.
func greeted(t *testing.T, source, address string, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	raw, err := from(t, source, address)
	if err != nil {
		return nil, err // reset before the operating system had told us of the connection
	}
	t.Cleanup(func() { _ = raw.Close() })
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	c := tls.Client(raw, config)
	wantOK(t, c.SetDeadline(time.Now().Add(patience)))
	if err := c.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c, make([]byte, 9))
	return c, err
}

func TestConnectionsOfOneAddressAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(c *server.Config) { c.ConnectionsPerAddress = 5 }})
	acme := join(t, b, "acme", time.Hour)
	const site1, site2 = "127.0.0.11", "127.0.0.12"
	for i := range 5 {
		if _, err := greeted(t, site1, b.Addr, b.TLS(acme.cert)); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
	}
	if _, err := greeted(t, site1, b.Addr, b.TLS(acme.cert)); err == nil {
		t.Error("a sixth connection was let in")
	}
	if _, err := greeted(t, site2, b.Addr, b.TLS(acme.cert)); err != nil {
		t.Errorf("another address: %v", err)
	}
	acme.works(t)
}

// Who opens connections too fast is slowed down, with or without a certificate.
func TestNewConnectionsOfOneAddressAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(c *server.Config) { c.ConnectionsPerAddress = 20 }})
	acme := join(t, b, "acme", time.Hour)
	refused := 0
	for range 200 {
		c, err := from(t, "127.0.0.21", b.Addr)
		if err != nil {
			refused++
			continue
		}
		wantOK(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
		}
		wantOK(t, c.Close())
	}
	if refused < 50 {
		t.Errorf("%d of 200 connections were refused", refused)
	}
	acme.works(t)
}

// A stranger who connects and says nothing, or never finishes, is put out.
func TestSlowHandshakesAreEnded(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
	acme := join(t, b, "acme", time.Hour)
	hello := clientHello(t, b)
	var strangers []net.Conn
	for _, address := range []string{b.Addr, b.Server.EnrollmentAddr().String()} {
		for _, begin := range [][]byte{nil, hello[:len(hello)/2], hello} {
			c, err := from(t, "127.0.0.31", address)
			wantOK(t, err)
			t.Cleanup(func() { _ = c.Close() })
			_, err = c.Write(begin)
			wantOK(t, err)
			strangers = append(strangers, c)
		}
	}
	// One that has a certificate and does not go on to HTTP/2.
	mute, err := greeted(t, "127.0.0.31", b.Addr, b.TLS(acme.cert))
	wantOK(t, err)
	strangers = append(strangers, mute)
	begun := time.Now()
	for _, c := range strangers {
		wantOK(t, c.SetDeadline(begun.Add(10*time.Second+patience)))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("still open after %s", time.Since(begun))
		}
	}
	acme.works(t)
}

// clientHello is how a TLS handshake begins.
func clientHello(t *testing.T, b *brokertest.Broker) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, b.TLS(tls.Certificate{})).HandshakeContext(t.Context())
	}()
	record := make([]byte, 5)
	_, err := io.ReadFull(server, record)
	wantOK(t, err)
	rest := make([]byte, int(record[3])<<8|int(record[4]))
	_, err = io.ReadFull(server, rest)
	wantOK(t, err)
	wantOK(t, server.Close())
	return append(record, rest...)
}

// A connection of the enrollment listener that makes no call is closed soon.
func TestIdleNewcomersAreDisconnected(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
	c := rawHTTP2(t, b.Server.EnrollmentAddr().String(), b.TLS(tls.Certificate{}))
	begun := time.Now()
	if err := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }); err != nil {
		t.Fatalf("the connection was not closed: %v", err)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("closed after %s", took)
	}
}

// The enrollment listener reads little, and of few connections.
func TestNewcomersAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
	address := b.Server.EnrollmentAddr().String()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(b.TLS(tls.Certificate{}))))
	wantOK(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	enroll := func(request []byte) error {
		_, err := stokerv1.NewEnrollmentServiceClient(conn).Enroll(t.Context(), &stokerv1.EnrollRequest{JoinToken: "none", CertificateRequest: request})
		return err
	}
	wantReason(t, enroll([]byte("none")), reason.RequestUnsigned)
	if err := enroll(make([]byte, 40<<10)); !isCode(err, codes.ResourceExhausted) {
		t.Errorf("a request of 40 KiB: %v", err)
	}
	var limited error
	for range 30 {
		if limited = enroll([]byte("none")); reasonOf(limited) == string(reason.RateLimited) {
			break
		}
	}
	wantReason(t, limited, reason.RateLimited)
	refused := 0
	for range 60 {
		if _, err := greeted(t, "127.0.0.41", address, b.TLS(tls.Certificate{})); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("60 connections of one address were let in")
	}
}

func TestStreamsOfOneAgentAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour).session(t)
	desktop := acme.with(b, b.Agent("acme", "desktop")).session(t)
	var open []*watched
	for range 8 {
		s := subscribe(t, acme)
		s.credential()
		open = append(open, s)
	}
	st := wantReason(t, opened(t, acme), reason.TooManyStreams)
	if len(st.Details()) < 2 {
		t.Errorf("no time to wait in %v", st)
	}
	// Another connection of the same agent is no way around it.
	wantReason(t, opened(t, acme.with(b, acme.cert)), reason.TooManyStreams)
	subscribe(t, desktop).credential()
	if b.STS.Calls()["GetFederationToken"] != 2 {
		t.Errorf("eight streams of one agent cost %v", b.STS.Calls())
	}
	for _, s := range open[:1] {
		wantOK(t, s.CloseSend())
	}
}

func TestMessagesOfOneStreamAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	s := subscribe(t, acme)
	id := s.credential().GetId()
	acknowledge := &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Acknowledge{
		Acknowledge: &stokerv1.Acknowledge{CredentialId: id},
	}}
	for range 1000 {
		if s.Send(acknowledge) != nil {
			break
		}
	}
	s.end()
	wantReason(t, s.err, reason.TooManyMessages)
	acme.works(t)
}

// A stream that asks for nothing does not wait for ever.
func TestFirstMessageIsDue(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	s, err := stokerv1.NewCredentialServiceClient(acme.conn).StreamCredentials(acme.ctx(t))
	wantOK(t, err)
	begun := time.Now()
	_, err = s.Recv()
	wantReason(t, err, reason.SubscribeFirst)
	if took := time.Since(begun); took < 10*time.Second || took > time.Minute {
		t.Errorf("after %s", took)
	}
}

// rawHTTP2 is a client of HTTP/2 that keeps to no limit.
type raw struct {
	*http2.Framer
	t       *testing.T
	conn    net.Conn
	headers bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32
}

func rawHTTP2(t *testing.T, address string, config *tls.Config) *raw {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
	wantOK(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, http2.ClientPreface)
	wantOK(t, err)
	r := &raw{Framer: http2.NewFramer(conn, conn), t: t, conn: conn, stream: 1}
	r.encoder = hpack.NewEncoder(&r.headers)
	wantOK(t, r.WriteSettings())
	wantOK(t, r.WriteSettingsAck())
	return r
}

// until reads frames until one satisfies want.
func (r *raw) until(want func(http2.Frame) bool) error {
	if err := r.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return err
		}
		if want(f) {
			return nil
		}
	}
}

// open sends the headers of a call of GetSession with a login.
func (r *raw) open(authorization string) (stream uint32) {
	r.t.Helper()
	r.headers.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", stokerv1.SessionService_GetSession_FullMethodName}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", authorization},
	} {
		wantOK(r.t, r.encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	stream, r.stream = r.stream, r.stream+2
	block := r.headers.Bytes()
	first := block[:min(len(block), 16<<10)]
	block = block[len(first):]
	wantOK(r.t, r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(block) == 0}))
	for len(block) > 0 {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		// The broker may have hung up already.
		if err := r.WriteContinuation(stream, len(block) == 0, part); err != nil {
			break
		}
	}
	return stream
}

// A login of 1 MB does not get as far as being read whole.
func TestHeadersThatAreTooLarge(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	for _, size := range []int{15 << 10, 20 << 10, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			login := "Basic " + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("b", size)+"@acme:x"))
			c := rawHTTP2(t, b.Addr, b.TLS(acme.cert))
			stream := c.open(login)
			err := c.until(func(f http2.Frame) bool {
				_, away := f.(*http2.GoAwayFrame)
				return away || f.Header().StreamID == stream && f.Header().Type == http2.FrameRSTStream
			})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the call was not reset")
			}
		})
	}
	acme.works(t)
}

// Of the calls of one connection only so many are open at once.
func TestCallsOfOneConnectionAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	c := rawHTTP2(t, b.Addr, b.TLS(acme.cert))
	var announced uint32
	wantOK(t, c.until(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if ok && !s.IsAck() {
			announced, _ = s.Value(http2.SettingMaxConcurrentStreams)
		}
		return ok && !s.IsAck()
	}))
	if announced != 64 {
		t.Fatalf("%d calls are announced", announced)
	}
	for range announced {
		c.open("Basic none")
	}
	over := c.open("Basic none")
	wantOK(t, c.until(func(f http2.Frame) bool {
		reset, ok := f.(*http2.RSTStreamFrame)
		return ok && reset.StreamID == over && reset.ErrCode == http2.ErrCodeRefusedStream
	}))
	acme.works(t)
}

// Pings cost the broker an answer each: who sends many is put out.
func TestPingsAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	c := rawHTTP2(t, b.Addr, b.TLS(acme.cert))
	for i := range 10 {
		if err := c.WritePing(false, [8]byte{byte(i)}); err != nil {
			break
		}
	}
	wantOK(t, c.until(func(f http2.Frame) bool {
		away, ok := f.(*http2.GoAwayFrame)
		return ok && away.ErrCode == http2.ErrCodeEnhanceYourCalm
	}))
	acme.works(t)
}

// One certificate has few passwords checked at once and few in the queue: the
// others are told when to come back.
func TestLoginsOfOneCertificateAreLimited(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const connections, calls = 3, 40
	answers := make(chan error, connections*calls)
	for range connections {
		a := acme.with(b, acme.cert)
		for range calls {
			go func() { answers <- a.whoami(brokertest.Basic(ctx, "backup@acme", acme.password)) }()
		}
	}
	busy := 0
	for range connections * calls {
		switch err := <-answers; {
		case err == nil:
		case reasonOf(err) == string(reason.LoginBusy):
			busy++
			st := wantReason(t, err, reason.LoginBusy)
			if len(st.Details()) != 3 {
				t.Errorf("no time to wait in %v", st)
			}
			cancel() // the others need not be waited for
		case status.Code(err) != codes.Canceled || busy == 0:
			t.Errorf("got %v", err)
		}
	}
	if busy == 0 {
		t.Error("none was told to wait")
	}
	acme.works(t)
}
