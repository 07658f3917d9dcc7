package agentapi

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

// streamCall is one call of StreamCredentials.
type streamCall = grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]

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
// calls are refused and this package's tests fail.
type finisher interface {
	WriteStatus(*status.Status) error
}

// errTransport is not explained to callers.
var errTransport = errors.New("the transport does not let a call be ended from the server's side")

// conn is the stream.Conn of one call.
type conn struct {
	call     streamCall
	finisher finisher
	log      *slog.Logger
}

func newConn(call streamCall, log *slog.Logger) (*conn, error) {
	f, ok := grpc.ServerTransportStreamFromContext(call.Context()).(finisher)
	if !ok {
		return nil, errTransport
	}
	return &conn{call, f, log}, nil
}

// Send implements stream.Conn.
func (c *conn) Send(m stream.Message) error {
	return c.call.Send(response(c.call.Context(), m))
}

// Cause implements lease.Traced.
func (c *conn) Cause() context.Context { return c.call.Context() }

// Finish implements stream.Conn.
func (c *conn) Finish(err error) {
	ctx := c.call.Context()
	if failed := c.finisher.WriteStatus(apierr.Status(ctx, err)); failed != nil {
		// The connection is gone, or does not take so long a status: either
		// way the call is over.
		c.log.DebugContext(ctx, "an agent was not told why its stream ended", "reason", err, "err", failed)
	}
}

// wait returns when the call has ended.
func wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
