package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // as a broker has it by its exporter of traces
	"google.golang.org/protobuf/proto"

	"github.com/stokerd/stoker/internal/loopback"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// echo answers each message with what its client field says.
type echo struct {
	stokerv1.UnimplementedCredentialServiceServer
}

func (echo) StreamCredentials(s grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.Send(&stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Welcome{
			Welcome: &stokerv1.Welcome{StreamId: m.GetSubscribe().GetClient()},
		}})
		if err != nil {
			return err
		}
	}
}

// serveEcho serves echo with the options and gives its address.
func serveEcho(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	s := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(maxMessage))...)
	stokerv1.RegisterCredentialServiceServer(s, echo{})
	return loopback.Serve(t, s)
}

// within are the options of a server that has the broker's layers.
func within(t *testing.T) []grpc.ServerOption {
	return chain(layers(slog.New(slog.NewTextHandler(t.Output(), nil)), newCallMetrics(), open))
}

// rawCall is a call whose bytes the test chooses.
type rawCall struct {
	t      *testing.T
	framer *http2.Framer
}

// begin opens a connection and on it a call with these headers beside the usual.
func begin(t *testing.T, address string, headers ...string) *rawCall {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &rawCall{t, http2.NewFramer(conn, conn)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.must(c.framer.WriteSettings())
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	all := append([]string{
		":method", "POST", ":scheme", "http", ":path", stokerv1.CredentialService_StreamCredentials_FullMethodName,
		":authority", "test", "content-type", "application/grpc", "te", "trailers",
	}, headers...)
	for i := 0; i < len(all); i += 2 {
		c.must(encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}))
	}
	c.must(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	return c
}

func (c *rawCall) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// outcome reads until the call ends and tells what came: the messages' content,
// then how it ended.
func (c *rawCall) outcome() (came []string) {
	c.t.Helper()
	var unread []byte
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return append(came, "lost: "+err.Error())
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			unread = append(unread, f.Data()...)
			for len(unread) >= 5 && len(unread) >= 5+int(binary.BigEndian.Uint32(unread[1:])) {
				n := 5 + int(binary.BigEndian.Uint32(unread[1:]))
				came = append(came, c.said(unread[0], unread[5:n]))
				unread = unread[n:]
			}
		case *http2.RSTStreamFrame:
			return append(came, "reset: "+f.ErrCode.String())
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				end := map[string]string{}
				for _, h := range f.RegularFields() {
					end[h.Name] = h.Value
				}
				return append(came, fmt.Sprintf("status %s: %s", end["grpc-status"], end["grpc-message"]))
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.must(c.framer.WriteSettingsAck())
			}
		}
	}
}

func (c *rawCall) said(format byte, b []byte) string {
	c.t.Helper()
	if format == compressed {
		z, err := gzip.NewReader(bytes.NewReader(b))
		c.must(err)
		b, err = io.ReadAll(z)
		c.must(err)
	}
	m := &stokerv1.StreamCredentialsResponse{}
	c.must(proto.Unmarshal(b, m))
	text := m.GetWelcome().GetStreamId()
	if len(text) > 20 {
		text = fmt.Sprintf("%s... (%d)", text[:20], len(text))
	}
	return fmt.Sprintf("%d %q", format, text)
}

// framed is a message behind its header.
func framed(format byte, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{format}, uint32(len(b))), b...)
}

// saying is a request with a client field.
func saying(t *testing.T, text string) []byte {
	t.Helper()
	b, err := proto.Marshal(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{
		Subscribe: &stokerv1.Subscribe{Client: text},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Whatever a caller sends, the broker's own way of receiving answers as grpc's
// does.
func TestReceivesAsGRPCDoes(t *testing.T) {
	hello := framed(uncompressed, saying(t, "hello"))
	long := framed(uncompressed, saying(t, strings.Repeat("long ", 8000)))
	for name, test := range map[string]struct {
		headers []string
		data    [][]byte
		open    bool // the caller does not end its side
		ends    string
	}{
		"messages":                       {data: [][]byte{hello, framed(uncompressed, saying(t, "again"))}, ends: "status 0: "},
		"two in a frame":                 {data: [][]byte{append(bytes.Clone(hello), hello...)}, ends: "status 0: "},
		"one byte a frame":               {data: bytes.SplitAfter(hello, nil), ends: "status 0: "},
		"one longer than a frame":        {data: [][]byte{long[:16_000], long[16_000:32_000], long[32_000:]}, ends: "status 0: "},
		"an empty one":                   {data: [][]byte{framed(uncompressed, nil)}, ends: "status 0: "},
		"none":                           {ends: "status 0: "},
		"one that is too long":           {data: [][]byte{{uncompressed, 0x00, 0x04, 0x00, 0x01}}, open: true, ends: "status 8: "},
		"one as long as may be, and cut": {data: [][]byte{{uncompressed, 0x00, 0x04, 0x00, 0x00}}, ends: "status 13: "},
		"the longest length":             {data: [][]byte{{uncompressed, 0xff, 0xff, 0xff, 0xff}}, open: true, ends: "status 8: "},
		"no protobuf":                    {data: [][]byte{framed(uncompressed, []byte{0xff, 0xff})}, open: true, ends: "status 13: "},
		"compressed without a word":      {data: [][]byte{framed(compressed, zipped(t, saying(t, "hello")))}, open: true, ends: "status 13: "},
		"another format":                 {data: [][]byte{framed(2, saying(t, "hello"))}, open: true, ends: "status 13: "},
		"a header that is cut":           {data: [][]byte{hello, hello[:3]}, ends: "status 13: "},
		"a message that is cut":          {data: [][]byte{hello, hello[:8]}, ends: "status 13: "},
		"gzip":                           {headers: []string{"grpc-encoding", "gzip"}, data: [][]byte{framed(compressed, zipped(t, saying(t, "hello"))), hello}, ends: "status 0: "},
		"identity":                       {headers: []string{"grpc-encoding", "identity"}, data: [][]byte{hello}, ends: "status 0: "},
		"identity, and yet compressed":   {headers: []string{"grpc-encoding", "identity"}, data: [][]byte{framed(compressed, hello)}, open: true, ends: "status 13: "},
		"an unknown encoding":            {headers: []string{"grpc-encoding", "none-such"}, data: [][]byte{hello}, open: true, ends: "status 12: "},
	} {
		t.Run(name, func(t *testing.T) {
			var outcomes []string
			for _, options := range [][]grpc.ServerOption{nil, within(t)} {
				call := begin(t, serveEcho(t, options...), test.headers...)
				for _, b := range test.data {
					call.must(call.framer.WriteData(1, false, b))
				}
				if !test.open {
					call.must(call.framer.WriteData(1, true, nil))
				}
				outcomes = append(outcomes, strings.Join(call.outcome(), "\n"))
			}
			if outcomes[0] != outcomes[1] {
				t.Errorf("grpc alone:\n%s\nwithin the layers:\n%s", outcomes[0], outcomes[1])
			}
			if lines := strings.Split(outcomes[0], "\n"); !strings.HasPrefix(lines[len(lines)-1], test.ends) {
				t.Errorf("got\n%s\nwant %s", outcomes[0], test.ends)
			}
		})
	}
}

// An idle stream waits where it needs little of its stack: below the layers is
// the transport, and none of what grpc has in between. A version of grpc whose
// transport is not as source wants it would pass every other test.
func TestIdleStreamsWaitInTheTransport(t *testing.T) {
	call := begin(t, serveEcho(t, within(t)...))
	call.must(call.framer.WriteData(1, false, framed(uncompressed, saying(t, "hello"))))
	var waits string
	for began := time.Now(); !strings.Contains(waits, "ReadMessageHeader"); runtime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("the handler does not wait in the transport:\n%s", waits)
		}
		waits = handler()
	}
	if strings.Contains(waits, "(*serverStream).RecvMsg") {
		t.Errorf("grpc's own RecvMsg waits:\n%s", waits)
	}
}

// handler is the stack of the goroutine that runs echo; "" while there is none.
func handler() string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "server.echo.StreamCredentials(") {
			return stack
		}
	}
	return ""
}

// A call that is not on grpc's own transport is received in the usual way.
func TestOtherTransportsReceive(t *testing.T) {
	if r := receiverOf(elsewhere{}); r.ready() {
		t.Error("messages are read from a transport that there is not")
	}
}

type elsewhere struct{ grpc.ServerStream }

func (elsewhere) Context() context.Context { return context.Background() }
