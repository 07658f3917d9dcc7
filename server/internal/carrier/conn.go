package carrier

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/stream"
)

// finisher is the part of a call on the transport that ends it.
//
// A call ends when its handler returns. The handler waits in Recv, and nothing
// that grpc documents wakes it there but a cancelled context, upon which grpc
// itself tells the agent CANCELLED before the handler can say why. A handler
// that waited elsewhere would need a second goroutine for Recv, at 5 KiB a
// stream. So the status is written first: grpc does the same from whichever
// goroutine finds a call broken, it may be done at any time, the first one
// counts, and it ends the context, so that Recv and Send return. The method is
// not in the interface that grpc exports. Should a version come without it,
// calls are refused and the tests of the APIs fail.
type finisher interface {
	WriteStatus(*status.Status) error
}

// errTransport is not explained to callers.
var errTransport = errors.New("the transport does not let a call be ended from the server's side")

// Conn is the stream.Conn of one call.
type Conn struct {
	ctx      context.Context // the call's
	finisher finisher
	send     func(*stokerv1.StreamCredentialsResponse) error
	log      *slog.Logger
}

// ConnOf makes the Conn of the call with this context, which takes messages by
// send.
func ConnOf(ctx context.Context, send func(*stokerv1.StreamCredentialsResponse) error, log *slog.Logger) (*Conn, error) {
	f, ok := grpc.ServerTransportStreamFromContext(ctx).(finisher)
	if !ok {
		return nil, errTransport
	}
	return &Conn{ctx, f, send, log}, nil
}

// Cause implements lease.Traced.
func (c *Conn) Cause() context.Context { return c.ctx }

// Send implements stream.Conn.
func (c *Conn) Send(m stream.Message) error { return c.send(response(c.ctx, m)) }

// Finish implements stream.Conn.
func (c *Conn) Finish(err error) {
	if failed := c.finisher.WriteStatus(apierr.Status(c.ctx, err)); failed != nil {
		// The connection is gone, or does not take so long a status: either
		// way the call is over.
		c.log.DebugContext(c.ctx, "a caller was not told why its stream ended", "reason", err, "err", failed)
	}
}

// Wait returns when the call with this context has ended.
func Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
