package server

import (
	"context"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/stokerd/stoker/internal/version"
	"github.com/stokerd/stoker/server/internal/tracing"
)

// openTracing begins tracing where the configuration asks for it.
func (s *Server) openTracing(ctx context.Context) (err error) {
	if c := s.config.Tracing; c.Endpoint != "" {
		s.tracing, err = tracing.Open(ctx, tracing.Config{Endpoint: c.Endpoint, Sample: c.Sample, Version: version.String(), Log: s.log})
	}
	return err
}

// endTracing sends what is left. A collector that is away is no failure of the
// broker's.
func (s *Server) endTracing(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, tracingLimit)
	defer cancel()
	if err := s.tracing.Close(limited); err != nil {
		s.log.WarnContext(ctx, "spans lost", "error", err)
	}
}

// served says of each method of a server whether it streams.
type served map[string]bool

func (m served) add(s *grpc.Server) {
	for service, info := range s.GetServiceInfo() {
		for _, call := range info.Methods {
			m["/"+service+"/"+call.Name] = call.IsClientStream || call.IsServerStream
		}
	}
}

// traces makes spans of calls. A call that is not served makes none, whatever
// path a client sends. Nor does a stream, which lasts for days and would be
// seen when it ends: the credentials that it waits for are found in the trace
// of whoever opened it.
func (s *Server) traces(methods served) []grpc.ServerOption {
	if s.tracing == nil {
		return nil
	}
	var remote propagation.TraceContext
	return []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(s.tracing.Provider()),
			// There are better ones on the operations listener.
			otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
			otelgrpc.WithPropagators(remote),
			otelgrpc.WithFilter(func(call *stats.RPCTagInfo) bool {
				streams, known := methods[call.FullMethodName]
				return known && !streams
			}),
		)),
		grpc.StatsHandler(origins{methods, remote}),
	}
}

// origins notes, on streams, the trace that the caller is in.
type origins struct {
	methods served
	remote  propagation.TextMapPropagator
}

// TagRPC implements stats.Handler.
func (o origins) TagRPC(ctx context.Context, call *stats.RPCTagInfo) context.Context {
	if !o.methods[call.FullMethodName] {
		return ctx
	}
	return o.remote.Extract(ctx, incoming{ctx})
}

// HandleRPC implements stats.Handler.
func (origins) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements stats.Handler.
func (origins) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (origins) HandleConn(context.Context, stats.ConnStats) {}

// incoming gives a propagator the metadata of a call to read.
type incoming struct{ ctx context.Context }

// Get implements propagation.TextMapCarrier.
func (c incoming) Get(key string) string {
	if values := metadata.ValueFromIncomingContext(c.ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier; nothing is written into a request.
func (incoming) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (c incoming) Keys() []string { return nil }
