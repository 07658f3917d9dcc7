package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

const scope = "github.com/stokerd/stoker"

// Config says where spans go.
type Config struct {
	// Endpoint is the URL of a collector that takes OTLP over gRPC; http:// is
	// without TLS. What else there is to say of the connection the exporter
	// reads from OTEL_EXPORTER_OTLP_* variables.
	Endpoint string
	// Sample is the part of traces that is kept, over 0 and at most 1.
	Sample float64
	// Version is the broker's.
	Version string
	// Log gets failures to export.
	Log *slog.Logger
	// Exporter replaces the one for Endpoint, in tests.
	Exporter sdktrace.SpanExporter
}

// Tracing makes spans and sends them off. The zero pointer makes none.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer

	// mu is held while a failure to export is logged, which nothing is once
	// closed is set.
	mu     sync.Mutex
	closed bool
	log    *slog.Logger
}

// Open begins tracing. It does not wait for the collector: what cannot be sent
// is kept for a while, in a queue with a bound, and then lost.
func Open(ctx context.Context, c Config) (*Tracing, error) {
	exporter := c.Exporter
	if exporter == nil {
		var err error
		if exporter, err = otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.Endpoint)); err != nil {
			return nil, fmt.Errorf("tracing: %w", err)
		}
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "stokerd"), attribute.String("service.version", c.Version)),
		// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
		resource.WithFromEnv())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tracing: %w", err), exporter.Shutdown(ctx))
	}
	t := &Tracing{log: c.Log}
	// The library has one place for what it cannot tell anybody.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.failed))
	ratio := sdktrace.TraceIDRatioBased(c.Sample)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithBatcher(exporter),
		// Callers are other people's machines: that one of them traces must
		// not make the broker keep every span.
		sdktrace.WithSampler(sdktrace.ParentBased(ratio,
			sdktrace.WithRemoteParentSampled(ratio), sdktrace.WithRemoteParentNotSampled(ratio))),
	)
	t.provider, t.tracer = provider, provider.Tracer(scope)
	return t, nil
}

// failed logs a failure to export.
func (t *Tracing) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.log.Warn("spans not exported", "error", err)
	}
}

// Provider makes tracers for what else is to be traced. Not to be called where
// tracing is off.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Close sends what is left, as long as ctx lasts. Once it has returned nothing
// is logged: an export that ctx did not wait for goes on for a while.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.provider.Shutdown(ctx)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("closing tracing: %w", err)
	}
	return nil
}

// end ends a span. Of an error it shows the reason alone: the text may hold
// what STS or a caller said.
func end(span trace.Span, why string) {
	if why != "" {
		span.SetStatus(codes.Error, why)
	}
	span.End()
}

// Leases follows attempts to issue; nil where tracing is off.
func (t *Tracing) Leases() lease.Tracer {
	if t == nil {
		return nil
	}
	return attempts{t.tracer}
}

type attempts struct{ tracer trace.Tracer }

// Attempt implements lease.Tracer. The span begins when the lease became due,
// so that what comes before its first child is the wait for the account's
// budget. It belongs to the trace of the first call that waits for it, and is
// linked to those of the others.
func (a attempts) Attempt(ctx context.Context, at lease.Attempt) (context.Context, func(error)) {
	begun := time.Now().Add(-at.Waited)
	options := []trace.SpanStartOption{
		trace.WithTimestamp(begun),
		trace.WithAttributes(
			attribute.String("stoker.account", at.Account),
			attribute.String("stoker.tenant", at.Tenant),
			attribute.String("stoker.login", at.Login),
			attribute.String("stoker.agent", at.Agent),
			attribute.String("stoker.grant", at.Grant),
			attribute.String("stoker.credential_id", at.CredentialID),
			attribute.Bool("stoker.renewal", at.Renewal),
			attribute.Float64("stoker.queue_seconds", at.Waited.Seconds()),
		),
	}
	for _, caller := range at.For {
		cause := trace.SpanContextFromContext(caller)
		switch {
		case !cause.IsValid():
		case !trace.SpanContextFromContext(ctx).IsValid():
			ctx = trace.ContextWithSpanContext(ctx, cause)
		default:
			options = append(options, trace.WithLinks(trace.Link{SpanContext: cause}))
		}
	}
	ctx, span := a.tracer.Start(ctx, "issue", options...)
	return ctx, func(err error) {
		if _, explained := errors.AsType[*reason.Error](err); err != nil && !explained {
			end(span, "discarded")
			return
		}
		end(span, string(reason.Of(err)))
	}
}

// Issuer shows an account's calls to STS.
func (t *Tracing) Issuer(inner issuer.Issuer, account issuer.Account) issuer.Issuer {
	if t == nil {
		return inner
	}
	return calls{inner, t.tracer, account}
}

type calls struct {
	issuer.Issuer
	tracer  trace.Tracer
	account issuer.Account
}

// Issue implements issuer.Issuer.
func (c calls) Issue(ctx context.Context, r issuer.Request) (issuer.Credential, error) {
	ctx, span := c.tracer.Start(ctx, "sts "+c.account.Method.Operation(), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("rpc.system", "aws-api"),
		attribute.String("rpc.service", "STS"),
		attribute.String("rpc.method", c.account.Method.Operation()),
		attribute.String("cloud.region", c.account.Region),
		attribute.String("stoker.account", c.account.Name),
		attribute.String("stoker.session_name", r.SessionName),
		attribute.Int("stoker.policy_characters", len(r.Policy)),
	))
	issued, err := c.Issuer.Issue(ctx, r)
	why := ""
	if err == nil {
		span.SetAttributes(attribute.Int("stoker.packed_policy_percent", issued.PackedPolicySize))
	} else {
		why = "failed"
		if failure, ok := errors.AsType[*issuer.Error](err); ok {
			why = string(failure.Kind) + " " + failure.Code
			span.SetAttributes(attribute.Int("http.response.status_code", failure.HTTPStatus))
		}
	}
	end(span, why)
	return issued, err
}

// Trail is the audit trail as leases and others append to it.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
	Healthy() error
}

// Trail shows the appends that a traced call waits for.
func (t *Tracing) Trail(inner Trail) Trail {
	if t == nil {
		return inner
	}
	return appends{inner, t.tracer}
}

type appends struct {
	Trail
	tracer trace.Tracer
}

// Append implements Trail.
func (a appends) Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return a.Trail.Append(ctx, rec, fence)
	}
	ctx, span := a.tracer.Start(ctx, "audit append", trace.WithAttributes(attribute.String("stoker.event", rec.Event)))
	stored, err := a.Trail.Append(ctx, rec, fence)
	end(span, string(reason.Of(err)))
	return stored, err
}
