package carrier

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/server/internal/apierr"
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

// End ends one call from the broker's side. A stream.Conn is made of it and of
// a Send.
type End struct {
	ctx      context.Context // the call's
	finisher finisher
	log      *slog.Logger
}

// EndOf makes the end of the call with this context.
func EndOf(ctx context.Context, log *slog.Logger) (End, error) {
	f, ok := grpc.ServerTransportStreamFromContext(ctx).(finisher)
	if !ok {
		return End{}, errTransport
	}
	return End{ctx, f, log}, nil
}

// Cause implements lease.Traced.
func (e End) Cause() context.Context { return e.ctx }

// Finish implements stream.Conn.
func (e End) Finish(err error) {
	if failed := e.finisher.WriteStatus(apierr.Status(e.ctx, err)); failed != nil {
		// The connection is gone, or does not take so long a status: either
		// way the call is over.
		e.log.DebugContext(e.ctx, "a caller was not told why its stream ended", "reason", err, "err", failed)
	}
}

// Wait returns when the call has ended.
func (e End) Wait() error {
	<-e.ctx.Done()
	return e.ctx.Err()
}
