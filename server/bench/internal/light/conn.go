package light

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var (
	// ErrClosed says that the connection has ended.
	ErrClosed = errors.New("the connection is closed")
	// ErrWindow says that the server has not read what was sent before.
	ErrWindow = errors.New("the server reads nothing: its window is full")
)

// Conn is one connection. Its methods are safe for concurrent use, and may be
// called by its Handler.
type Conn struct {
	tls       *tls.Conn
	authority string
	to        Handler
	deaf      bool

	// mu is held while something is written, so that frames come in the order
	// in which calls were begun.
	mu      sync.Mutex
	closed  bool
	nextID  uint32
	encoder *hpack.Encoder
	headers bytes.Buffer
	calls   []*call
	// window and callWindow are what may be sent on the connection, and on a
	// call to begin with.
	window, callWindow int64
}

// call is one call that has not ended.
type call struct {
	id     uint32
	window int64 // what may be sent, guarded by Conn.mu

	// The rest is the reading goroutine's.

	// partial has the beginning of a message whose rest has not come.
	partial []byte
	// unread is what was read and not yet given back to the server's window.
	unread uint32
}

// Header is one field of a call's metadata, with a lower-case name.
type Header struct{ Name, Value string }

// Begin begins a call and sends its first message. last says that there will be
// no other. It returns the call's number.
func (c *Conn) Begin(path string, metadata []Header, message []byte, last bool) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, ErrClosed
	}
	made := &call{id: c.nextID, window: c.callWindow}
	if err := c.spend(made, len(message)); err != nil {
		return 0, err
	}
	c.nextID += 2
	c.headers.Reset()
	for _, h := range append([]Header{
		{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", c.authority},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	}, metadata...) {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: h.Name, Value: h.Value}); err != nil {
			return 0, err
		}
	}
	b := buffer()
	defer release(b)
	*b = appendFrameHeader(*b, c.headers.Len(), http2.FrameHeaders, http2.FlagHeadersEndHeaders, made.id)
	*b = append(*b, c.headers.Bytes()...)
	*b = appendMessage(*b, made.id, message, last)
	c.calls = append(c.calls, made)
	return made.id, c.writeLocked(*b)
}

// Send sends a further message of a call.
func (c *Conn) Send(id uint32, message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	to := c.find(id)
	if to == nil {
		return fmt.Errorf("call %d has ended", id)
	}
	if err := c.spend(to, len(message)); err != nil {
		return err
	}
	b := buffer()
	defer release(b)
	*b = appendMessage(*b, id, message, false)
	return c.writeLocked(*b)
}

// messagePrefix is a message's length and whether it is compressed.
const messagePrefix = 5

// spend takes a message out of the windows, or says that it does not fit.
func (c *Conn) spend(to *call, length int) error {
	n := int64(length + messagePrefix)
	if n > c.window || n > to.window {
		return ErrWindow
	}
	c.window -= n
	to.window -= n
	return nil
}

// longestFrame is what every server must take in one frame.
const longestFrame = 16 << 10

// appendMessage appends the frames of one message.
func appendMessage(b []byte, id uint32, message []byte, last bool) []byte {
	left := len(message) + messagePrefix
	n := min(left, longestFrame)
	b = appendFrameHeader(b, n, http2.FrameData, lastFlag(last && n == left), id)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	b = append(b, message[:n-messagePrefix]...)
	for rest := message[n-messagePrefix:]; len(rest) > 0; rest = rest[n:] {
		n = min(len(rest), longestFrame)
		b = appendFrameHeader(b, n, http2.FrameData, lastFlag(last && n == len(rest)), id)
		b = append(b, rest[:n]...)
	}
	return b
}

func lastFlag(last bool) http2.Flags {
	if last {
		return http2.FlagDataEndStream
	}
	return 0
}

func (c *Conn) find(id uint32) *call {
	for _, known := range c.calls {
		if known.id == id {
			return known
		}
	}
	return nil
}

// Close ends the connection. The Handler is told.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		_ = c.tls.SetWriteDeadline(time.Now().Add(closeWait))
		// The reader finds the connection closed and tells the handler.
		_ = c.tls.Close()
	}
}

// Abandon ends the connection without a word to the server, as a computer that
// loses its power does, as far as the kernel lets it: unsent data is dropped.
func (c *Conn) Abandon() { _ = c.tls.NetConn().Close() }

func (c *Conn) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(b)
}

func (c *Conn) writeLocked(b []byte) error {
	if c.closed {
		return ErrClosed
	}
	_, err := c.tls.Write(b)
	return err
}

// run reads until the connection ends.
func (c *Conn) run(framer *http2.Framer) {
	err := c.read(framer)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	c.mu.Lock()
	c.closed = true
	c.calls, c.encoder, c.headers = nil, nil, bytes.Buffer{}
	c.mu.Unlock()
	_ = c.tls.NetConn().Close()
	c.to.Closed(err)
}

// buffers are what is written from: a connection that is silent holds none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func buffer() *[]byte { return buffers.Get().(*[]byte) }

func release(b *[]byte) {
	*b = (*b)[:0]
	buffers.Put(b)
}
