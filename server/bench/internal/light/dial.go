package light

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow and connWindow are what the server may send ahead of what
	// was read. They are those of package client and never change, so that no
	// pings are needed to find better ones.
	streamWindow = 64 << 10
	connWindow   = 64 << 10
	// defaultWindow is what HTTP/2 begins with.
	defaultWindow = 1<<16 - 1
	// deafWindow takes a welcome, and no credential.
	deafWindow = 768
	// longestHeaders bounds the headers of an answer.
	longestHeaders = 64 << 10
)

// Target says where to connect to and as whom.
type Target struct {
	// Address is the server's host and port.
	Address string
	// Source is the local address; zero leaves it to the system.
	Source netip.Addr
	// TLS has the client certificate, the roots and the server's name. It is
	// not copied and must not change.
	TLS *tls.Config
	// Authority is the :authority of calls.
	Authority string
	// Deaf makes a client that reads next to nothing: the server may send
	// deafWindow bytes of a call ahead, and they are never given back.
	Deaf bool
}

// Handler is told what arrives on one connection. Its methods are called one
// at a time by the connection's goroutine, and must not wait.
type Handler interface {
	// Message brings one message of a call. The bytes are good until it
	// returns.
	Message(call uint32, message []byte)
	// Ended tells that a call is over.
	Ended(call uint32, s Status)
	// Closed tells that the connection is over, with all its calls. It comes
	// once and last.
	Closed(err error)
}

// Dial connects, shakes hands, learns the server's settings and begins to read.
// The caller's goroutine does the handshake, whose grown stack the connection
// thus does not keep.
func Dial(ctx context.Context, t Target, h Handler) (*Conn, error) {
	var dialer net.Dialer
	if t.Source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.Source, 0))
	}
	raw, err := dialer.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw, t.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", t.Address, err)
	}
	if p := secured.ConnectionState().NegotiatedProtocol; p != http2.NextProtoTLS {
		_ = raw.Close()
		return nil, fmt.Errorf("%s speaks %q, not HTTP/2", t.Address, p)
	}
	c := &Conn{tls: secured, authority: t.Authority, deaf: t.Deaf, to: h, nextID: 1, window: defaultWindow, callWindow: defaultWindow}
	c.encoder = hpack.NewEncoder(&c.headers)
	framer := newFramer(secured)
	if err := c.greet(ctx, framer); err != nil {
		_ = raw.Close()
		return nil, err
	}
	go c.run(framer)
	return c, nil
}

// greet exchanges settings. As grpc-go's client does, nothing is asked of a
// server whose settings are not known.
func (c *Conn) greet(ctx context.Context, framer *http2.Framer) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.tls.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if err := c.write(preface(c.deaf)); err != nil {
		return err
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		return err
	}
	first, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return fmt.Errorf("the server's first frame is %v, not its settings", frame.Header().Type)
	}
	if err := c.settings(first); err != nil {
		return err
	}
	return c.tls.SetDeadline(time.Time{})
}

// preface opens the connection: the fixed text, the settings, and a window as
// wide as a stream's.
func preface(deaf bool) []byte {
	window := uint32(streamWindow)
	if deaf {
		window = deafWindow
	}
	settings := []http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0},
		{ID: http2.SettingInitialWindowSize, Val: window},
		{ID: http2.SettingMaxHeaderListSize, Val: longestHeaders},
	}
	b := []byte(http2.ClientPreface)
	b = appendFrameHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return appendWindowUpdate(b, 0, connWindow-defaultWindow)
}

func appendFrameHeader(b []byte, length int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

func appendWindowUpdate(b []byte, id, by uint32) []byte {
	b = appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(b, by)
}

// closeWait bounds how long a connection that is being closed waits for the
// alert to be written.
const closeWait = time.Second
