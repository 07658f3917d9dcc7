package server

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/server/internal/carrier"
)

// source is the part of a call on the transport that its messages come from.
// The methods are not in the interface that grpc exports. Should a version come
// without them, messages are received as usual, and a test fails.
type source interface {
	// ReadMessageHeader waits for the next message.
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	// RecvCompress is how the caller's messages are compressed; "": not.
	RecvCompress() string
}

// receiver receives the messages of a stream, to the same effect as RecvMsg of
// grpc.
//
// It is here for the sake of what waits: RecvMsg leaves so many frames on the
// stack of the handler's goroutine, and unmarshals on it, that an idle stream
// keeps 8 KiB. From here 4 KiB are enough. What grpc tells its handlers of
// statistics about each message is left out; nobody listens on streams.
type receiver struct {
	from   source
	header [5]byte
}

// receiverOf makes a receiver for a call on which the caller streams. It
// receives nothing, see ready, where messages are compressed or the transport
// is not grpc's own.
func receiverOf(ss grpc.ServerStream) receiver {
	from, ok := grpc.ServerTransportStreamFromContext(ss.Context()).(source)
	if !ok {
		return receiver{}
	}
	if how := from.RecvCompress(); how != "" && how != encoding.Identity {
		return receiver{}
	}
	return receiver{from: from}
}

func (r *receiver) ready() bool { return r.from != nil }

// receive waits for the next message and unmarshals it into m. io.EOF says that
// the caller sends no more.
func (r *receiver) receive(m any) error {
	if err := r.from.ReadMessageHeader(r.header[:]); err != nil {
		return interrupted(err)
	}
	return carrier.Apart(func() error { return r.read(m) })
}

// The first byte of a message's header; the others are its length.
const (
	uncompressed = 0
	compressed   = 1
)

// read reads the message whose header has come.
func (r *receiver) read(m any) error {
	length := binary.BigEndian.Uint32(r.header[1:])
	if length > maxMessage {
		return status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", length, maxMessage)
	}
	data, err := r.from.Read(int(length))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return interrupted(err)
	}
	defer data.Free()
	switch format := r.header[0]; format {
	case uncompressed:
	case compressed:
		return status.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	default:
		return status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", format)
	}
	if err := encoding.GetCodecV2(proto.Name).Unmarshal(data, m); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// interrupted is what a handler is told of an error of the transport.
func interrupted(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return status.Error(codes.Internal, io.ErrUnexpectedEOF.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	// The connection has failed, so that nobody gets to see this.
	return status.Error(codes.Unavailable, err.Error())
}
