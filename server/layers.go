package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/google/uuid"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
)

// requestIDHeader carries the request id to the caller.
const requestIDHeader = "x-request-id"

// layer is one thing that happens around every call, unary or streaming.
type layer struct {
	name   string
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
}

// layers lists what every call passes, outermost first. The order matters:
//
//   - the request id comes first, so that all others can name it;
//   - metrics and log see the final status, so they stand outside of errors;
//   - errors turns what the layers inside answer into a status;
//   - recovery comes next: a panic is an error like any other to the rest. It
//     stands before authentication, which is the first to read what strangers
//     send;
//   - authentication stands before every handler and fails closed.
func layers(log *slog.Logger, metrics *grpcprom.ServerMetrics, let gate) []layer {
	logged := callLog(log)
	options := []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithDisableLoggingFields(logging.ComponentFieldKey, logging.MethodTypeFieldKey, logging.SystemTag[0]),
		logging.WithDurationField(logging.DurationToDurationField),
		logging.WithErrorFields(errorFields),
	}
	panics := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		log.ErrorContext(ctx, "call panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()),
			"request_id", apierr.RequestID(ctx))
		return reason.New(reason.Internal, "the call panicked")
	})
	return []layer{
		{"request id", identifyUnary, identifyStream},
		{"metrics", metrics.UnaryServerInterceptor(), metrics.StreamServerInterceptor()},
		{"log", logging.UnaryServerInterceptor(logged, options...), logging.StreamServerInterceptor(logged, options...)},
		{"errors", explainUnary(log), explainStream(log)},
		{"recovery", recovery.UnaryServerInterceptor(panics), recovery.StreamServerInterceptor(panics)},
		{"authentication", let.unary, let.stream},
	}
}

// chain gives the layers to grpc.
func chain(all []layer) []grpc.ServerOption {
	unary := make([]grpc.UnaryServerInterceptor, len(all))
	stream := make([]grpc.StreamServerInterceptor, len(all))
	for i, l := range all {
		unary[i], stream[i] = l.unary, l.stream
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary...), grpc.ChainStreamInterceptor(stream...)}
}

// identify gives a call its request id, made here: a caller's own could be
// anything, and would reach logs and the audit trail.
func identify(ctx context.Context) (context.Context, string) {
	id := uuid.Must(uuid.NewV7()).String()
	ctx = apierr.WithRequestID(ctx, id)
	return logging.InjectFields(ctx, logging.Fields{"request_id", id}), id
}

func identifyUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, id := identify(ctx)
	if err := grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, id)); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func identifyStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, id := identify(ss.Context())
	if err := ss.SetHeader(metadata.Pairs(requestIDHeader, id)); err != nil {
		return err
	}
	return next(srv, &middleware.WrappedServerStream{ServerStream: ss, WrappedContext: ctx})
}

// explain turns a handler's error into a status, and logs what the caller does
// not learn.
func explain(ctx context.Context, log *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	if apierr.Unexplained(err) {
		log.ErrorContext(ctx, "call failed", "method", method, "error", err, "request_id", apierr.RequestID(ctx))
	}
	return apierr.Error(ctx, err)
}

func explainUnary(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		answer, err := next(ctx, req)
		return answer, explain(ctx, log, info.FullMethod, err)
	}
}

func explainStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return explain(ss.Context(), log, info.FullMethod, next(srv, ss))
	}
}

// callLog lets the logging layer write to slog.
func callLog(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		log.Log(ctx, slog.Level(level), msg, fields...)
	})
}

// errorFields gives the log the reason beside the status code.
func errorFields(err error) logging.Fields {
	st := status.Convert(err)
	fields := logging.Fields{"error", st.Message()}
	if r := apierr.Reason(st); r != "" {
		fields = append(fields, "reason", r)
	}
	return fields
}
