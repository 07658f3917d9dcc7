package light

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// longestMessage bounds one message.
const longestMessage = 4 << 20

// Status is how a call ended.
type Status struct {
	// Code is gRPC's; Unset if the server sent none.
	Code    int
	Message string
	// Details is a google.rpc.Status in protobuf, if the server sent one.
	Details []byte
}

// Unset is the code of a call that ended without a status: it was reset.
const Unset = -1

func newFramer(from io.Reader) *http2.Framer {
	framer := http2.NewFramer(nil, from)
	framer.SetReuseFrames()
	framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	framer.MaxHeaderListSize = longestHeaders
	return framer
}

// read reads frames until there are no more.
func (c *Conn) read(framer *http2.Framer) error {
	var unread uint32 // of the connection
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			if unread += f.Length; unread >= connWindow/2 {
				err = c.write(appendWindowUpdate(nil, 0, unread))
				unread = 0
			}
			if err == nil {
				err = c.data(f)
			}
		case *http2.MetaHeadersFrame:
			c.fields(f)
		case *http2.RSTStreamFrame:
			c.end(f.StreamID, Status{Code: Unset, Message: "reset: " + f.ErrCode.String()})
		case *http2.SettingsFrame:
			err = c.settings(f)
		case *http2.WindowUpdateFrame:
			c.widen(f.StreamID, int64(f.Increment))
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.write(append(appendFrameHeader(nil, 8, http2.FramePing, http2.FlagPingAck, 0), f.Data[:]...))
			}
		}
		if err != nil {
			return err
		}
	}
}

// lookup finds a call for the reader.
func (c *Conn) lookup(id uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(id)
}

// data hands out the messages that a frame completes.
func (c *Conn) data(f *http2.DataFrame) error {
	of := c.lookup(f.StreamID)
	if of == nil {
		return nil
	}
	if of.unread += f.Length; of.unread >= streamWindow/2 {
		if err := c.write(appendWindowUpdate(nil, of.id, of.unread)); err != nil {
			return err
		}
		of.unread = 0
	}
	b := f.Data()
	if len(of.partial) > 0 {
		b = append(of.partial, b...)
	}
	for len(b) >= messagePrefix {
		length := int(binary.BigEndian.Uint32(b[1:messagePrefix]))
		if b[0] != 0 || length > longestMessage {
			return fmt.Errorf("a message is compressed, or of %d bytes", length)
		}
		if len(b) < messagePrefix+length {
			break
		}
		c.to.Message(of.id, b[messagePrefix:messagePrefix+length])
		b = b[messagePrefix+length:]
	}
	of.partial = nil
	if len(b) > 0 {
		of.partial = append([]byte(nil), b...)
	}
	if f.StreamEnded() {
		c.end(of.id, Status{Code: Unset, Message: "ended without a status"})
	}
	return nil
}

// fields takes a call's headers or trailers; only those with a status matter.
func (c *Conn) fields(f *http2.MetaHeadersFrame) {
	of := c.lookup(f.StreamID)
	if of == nil {
		return
	}
	status := Status{Code: Unset}
	for _, field := range f.Fields {
		switch field.Name {
		case "grpc-status":
			if code, err := strconv.Atoi(field.Value); err == nil {
				status.Code = code
			}
		case "grpc-message":
			status.Message = field.Value
			if plain, err := url.PathUnescape(field.Value); err == nil {
				status.Message = plain
			}
		case "grpc-status-details-bin":
			// Padding is optional in what gRPC sends.
			if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(field.Value, "=")); err == nil {
				status.Details = raw
			}
		}
	}
	if f.StreamEnded() {
		c.end(of.id, status)
	}
}

// end forgets a call and tells of its end.
func (c *Conn) end(id uint32, s Status) {
	c.mu.Lock()
	known := false
	for i, one := range c.calls {
		if one.id == id {
			c.calls = append(c.calls[:i], c.calls[i+1:]...)
			known = true
			break
		}
	}
	c.mu.Unlock()
	if known {
		c.to.Ended(id, s)
	}
}

// settings takes over the server's settings and confirms them.
func (c *Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	if width, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, one := range c.calls {
			one.window += int64(width) - c.callWindow
		}
		c.callWindow = int64(width)
	}
	if size, ok := f.Value(http2.SettingHeaderTableSize); ok && c.encoder != nil {
		c.encoder.SetMaxDynamicTableSizeLimit(size)
	}
	c.mu.Unlock()
	return c.write(appendFrameHeader(nil, 0, http2.FrameSettings, http2.FlagSettingsAck, 0))
}

func (c *Conn) widen(id uint32, by int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		c.window += by
	} else if one := c.find(id); one != nil {
		one.window += by
	}
}
