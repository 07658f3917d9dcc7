package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
)

// requestIDHeader carries the request id to the caller.
const requestIDHeader = "x-request-id"

// layer is one thing that happens around every call, unary or streaming.
// Either function may be nil.
type layer struct {
	name string
	// enter comes before the layers further in and the handler, and gives them
	// their context. After an error nothing further in happens.
	enter func(ctx context.Context, c *call) (context.Context, error)
	// leave comes after what is further in, with the error of that. What it
	// returns is the error for those further out. It comes only if enter
	// returned no error.
	leave func(ctx context.Context, c *call, err error) error
}

// layers lists what every call passes, outermost first. The order matters:
//
//   - the request id comes first, so that all others can name it;
//   - metrics and log see the final status, so they stand outside of errors;
//   - errors turns what the layers inside answer into a status;
//   - authentication stands before every handler and fails closed.
//
// A panic in one of them, or in the handler, is an error like any other to
// those further out.
func layers(log *slog.Logger, metrics *callMetrics, let gate) *around {
	return &around{log: log, layers: []layer{
		{name: "request id", enter: identify},
		{name: "metrics", enter: metrics.enter, leave: metrics.leave},
		{name: "log", leave: logged(log)},
		{name: "errors", leave: explained(log)},
		{name: "authentication", enter: let.enter},
	}}
}

// call is what the layers know of one call. A stream's is kept for as long as
// it is open.
type call struct {
	method  string // the full name
	streams bool
	began   time.Time
	id      string
	// caller and login are what the gate found out, for the log.
	caller, login string
	counted       *methodMetrics
}

// callKey carries the call in its context.
type callKey struct{}

// callOf gives the call that a layer's context is of.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// around has grpc call each handler inside of the layers.
//
// It is one interceptor and not a chain of many, because the frames of a chain
// stay on the stack of every open stream: with six layers they double it.
type around struct {
	layers []layer
	log    *slog.Logger
}

// chain gives the layers to grpc.
func chain(a *around) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.UnaryInterceptor(a.unary), grpc.StreamInterceptor(a.stream)}
}

func (a *around) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	c := &call{method: info.FullMethod, began: time.Now()}
	within := ctx
	entered := 0
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, a.panicked(within, p)
		}
		if err = a.leave(within, c, entered, err); err != nil {
			answer = nil
		}
	}()
	if within, err = a.enter(ctx, c, &entered); err != nil {
		return nil, err
	}
	return next(within, req)
}

func (a *around) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	s := &callStream{ServerStream: ss, ctx: ss.Context(), call: call{method: info.FullMethod, streams: true, began: time.Now()}}
	if info.IsClientStream {
		s.in = receiverOf(ss)
	}
	entered, err := a.open(s)
	if err == nil {
		err = a.handle(srv, s, next)
	}
	return a.leave(s.ctx, &s.call, entered, err)
}

// open enters the layers on a goroutine of its own. A stack does not become
// smaller again while a quarter of it is in use, and the handler's goroutine
// waits for as long as the stream is open: what reads certificates and tokens
// would leave it at twice the size.
func (a *around) open(s *callStream) (entered int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = a.panicked(s.ctx, p)
			}
		}()
		s.ctx, err = a.enter(s.ctx, &s.call, &entered)
	}()
	<-done
	return entered, err
}

func (a *around) handle(srv any, s *callStream, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = a.panicked(s.ctx, p)
		}
	}()
	return next(srv, s)
}

// enter enters the layers in their order and counts them.
func (a *around) enter(ctx context.Context, c *call, entered *int) (context.Context, error) {
	ctx = context.WithValue(ctx, callKey{}, c)
	for _, l := range a.layers {
		if l.enter != nil {
			within, err := l.enter(ctx, c)
			if err != nil {
				return ctx, err
			}
			ctx = within
		}
		*entered++
	}
	return ctx, nil
}

// leave leaves those that were entered, the last one first.
func (a *around) leave(ctx context.Context, c *call, entered int, err error) error {
	for i := entered - 1; i >= 0; i-- {
		if l := a.layers[i]; l.leave != nil {
			err = l.leave(ctx, c, err)
		}
	}
	return err
}

// panicked logs a panic and makes an error of it.
func (a *around) panicked(ctx context.Context, p any) error {
	a.log.ErrorContext(ctx, "call panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "request_id", apierr.RequestID(ctx))
	return reason.New(reason.Internal, "the call panicked")
}

// callStream is a stream inside of the layers. It counts messages.
type callStream struct {
	grpc.ServerStream
	ctx  context.Context
	call call
	in   receiver
}

func (s *callStream) Context() context.Context { return s.ctx }

func (s *callStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil && s.call.counted != nil {
		s.call.counted.sent.Inc()
	}
	return err
}

func (s *callStream) RecvMsg(m any) error {
	var err error
	if s.in.ready() {
		err = s.in.receive(m)
	} else {
		err = s.ServerStream.RecvMsg(m)
	}
	if err == nil && s.call.counted != nil {
		s.call.counted.received.Inc()
	}
	return err
}

// identify gives a call its request id, made here: a caller's own could be
// anything, and would reach logs and the audit trail.
func identify(ctx context.Context, c *call) (context.Context, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	c.id = id.String()
	return apierr.WithRequestID(ctx, c.id), grpc.SetHeader(ctx, metadata.MD{requestIDHeader: {c.id}})
}

// explained turns a handler's error into a status, and logs what the caller
// does not learn.
func explained(log *slog.Logger) func(context.Context, *call, error) error {
	return func(ctx context.Context, c *call, err error) error {
		if err == nil {
			return nil
		}
		if apierr.Unexplained(err) {
			log.ErrorContext(ctx, "call failed", "method", c.method, "error", err, "request_id", c.id)
		}
		return apierr.Error(ctx, err)
	}
}

// logged writes a line for each call at its end.
func logged(log *slog.Logger) func(context.Context, *call, error) error {
	return func(ctx context.Context, c *call, err error) error {
		st := status.Convert(err)
		level := levelOf(st.Code())
		if !log.Enabled(ctx, level) {
			return err
		}
		service, method := split(c.method)
		line := make([]slog.Attr, 0, 12)
		line = append(line, slog.String("request_id", c.id), slog.String("grpc.service", service), slog.String("grpc.method", method))
		if from, ok := peer.FromContext(ctx); ok {
			line = append(line, slog.String("peer.address", from.Addr.String()))
		}
		if c.caller != "" {
			line = append(line, slog.String("caller", c.caller))
		}
		if c.login != "" {
			line = append(line, slog.String("login", c.login))
		}
		line = append(line, slog.String("grpc.code", st.Code().String()), slog.Duration("grpc.duration", time.Since(c.began)))
		if err != nil {
			line = append(line, slog.String("error", st.Message()))
			if r := apierr.Reason(st); r != "" {
				line = append(line, slog.String("reason", string(r)))
			}
		}
		log.LogAttrs(ctx, level, "finished call", line...)
		return err
	}
}

// levelOf tells what a provider should look at: a caller's mistakes are of
// little interest, refusals and shortages of some.
func levelOf(c codes.Code) slog.Level {
	switch c {
	case codes.OK, codes.Canceled, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.Unauthenticated:
		return slog.LevelInfo
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}
