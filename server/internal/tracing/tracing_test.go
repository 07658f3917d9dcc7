package tracing

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/transcript"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keep opens tracing whose spans stay in memory; flush ends it and gives them.
func keep(t *testing.T) (tracing *Tracing, flush func() tracetest.SpanStubs) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	tracing, err := Open(t.Context(), Config{Sample: 1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Exporter: held{kept}})
	if err != nil {
		t.Fatal(err)
	}
	return tracing, func() tracetest.SpanStubs {
		if err := tracing.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return kept.GetSpans()
	}
}

// held is an exporter that keeps what it has when it is shut down.
type held struct{ *tracetest.InMemoryExporter }

func (held) Shutdown(context.Context) error { return nil }

type fakeIssuer struct {
	credential issuer.Credential
	err        error
}

func (f fakeIssuer) Issue(context.Context, issuer.Request) (issuer.Credential, error) {
	return f.credential, f.err
}

type fakeTrail struct{ err error }

func (f fakeTrail) Append(_ context.Context, r storage.AuditRecord, _ int64) (storage.AuditRecord, error) {
	return r, f.err
}

func (f fakeTrail) Healthy() error { return f.err }

// Tracing that is off is not in the way at all.
func TestOffIsNothing(t *testing.T) {
	var off *Tracing
	if off.Leases() != nil {
		t.Error("leases are traced")
	}
	if _, same := off.Issuer(fakeIssuer{}, issuer.Account{}).(fakeIssuer); !same {
		t.Error("calls to STS are wrapped")
	}
	if _, same := off.Trail(fakeTrail{}).(fakeTrail); !same {
		t.Error("appends are wrapped")
	}
	if err := off.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAttemptBelongsToTheFirstCallAndIsLinkedToOthers(t *testing.T) {
	tracing, flush := keep(t)
	tracer := tracing.Provider().Tracer("test")
	first, one := tracer.Start(t.Context(), "first")
	second, two := tracer.Start(t.Context(), "second")
	ctx, end := tracing.Leases().Attempt(t.Context(), lease.Attempt{
		Account: "main", Tenant: "acme", Waited: time.Minute, For: []context.Context{t.Context(), first, second},
	})
	_, err := tracing.Trail(fakeTrail{}).Append(ctx, storage.AuditRecord{Event: "credential.issued"}, 0)
	end(err)
	one.End()
	two.End()
	spans := flush()
	byName := map[string]tracetest.SpanStub{}
	for _, s := range spans {
		byName[s.Name] = s
	}
	issue := byName["issue"]
	if issue.Parent.SpanID() != one.SpanContext().SpanID() || issue.SpanContext.TraceID() != one.SpanContext().TraceID() {
		t.Errorf("its parent is %v", issue.Parent)
	}
	if len(issue.Links) != 1 || issue.Links[0].SpanContext.TraceID() != two.SpanContext().TraceID() {
		t.Errorf("its links are %v", issue.Links)
	}
	if waited := issue.EndTime.Sub(issue.StartTime); waited < time.Minute {
		t.Errorf("it took %v with a minute in the queue", waited)
	}
	if appended := byName["audit append"]; appended.Parent.SpanID() != issue.SpanContext.SpanID() {
		t.Errorf("the append's parent is %v", appended.Parent)
	}
}

// What an error says to people stays out of spans; its reason is shown.
func TestErrorsShowTheirReasonAlone(t *testing.T) {
	const said = "a text from elsewhere"
	tracing, flush := keep(t)
	ctx, end := tracing.Leases().Attempt(t.Context(), lease.Attempt{})
	_, err := tracing.Issuer(fakeIssuer{err: &issuer.Error{Kind: issuer.Throttled, Code: "Throttling", HTTPStatus: 400, Message: said}}, issuer.Account{
		Name: "main", Method: issuer.AssumeRole,
	}).Issue(ctx, issuer.Request{Policy: said})
	if err == nil {
		t.Fatal("the error was swallowed")
	}
	_, _ = tracing.Issuer(fakeIssuer{err: errors.New(said)}, issuer.Account{}).Issue(ctx, issuer.Request{})
	_, err = tracing.Trail(fakeTrail{err: reason.New(reason.AuditUnavailable, said)}).Append(ctx, storage.AuditRecord{}, 0)
	end(err)
	_, late := tracing.Leases().Attempt(t.Context(), lease.Attempt{})
	late(errors.New(said))
	statuses := map[string]int{}
	for _, s := range flush() {
		statuses[s.Name+": "+s.Status.Description]++
		for _, a := range s.Attributes {
			if strings.Contains(a.Value.String(), said) {
				t.Errorf("%s shows %s", s.Name, a.Key)
			}
		}
	}
	for _, want := range []string{
		"sts AssumeRole: throttled Throttling", "sts AssumeRole: failed", "audit append: AUDIT_UNAVAILABLE", "issue: AUDIT_UNAVAILABLE", "issue: discarded",
	} {
		if statuses[want] != 1 {
			t.Errorf("%q was shown %d times: %v", want, statuses[want], statuses)
		}
	}
}

// Appends that no traced call waits for would be traces of one span each.
func TestUntracedAppendsMakeNoSpans(t *testing.T) {
	tracing, flush := keep(t)
	if _, err := tracing.Trail(fakeTrail{}).Append(t.Context(), storage.AuditRecord{}, 0); err != nil {
		t.Fatal(err)
	}
	if spans := flush(); len(spans) > 0 {
		t.Errorf("%d spans", len(spans))
	}
}

// late is an exporter that fails once it may, and tells when all is over.
type late struct{ fail, over chan struct{} }

func (l late) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	<-l.fail
	return errors.New("too late")
}

func (l late) Shutdown(context.Context) error {
	close(l.over)
	return nil
}

// What an export that nobody waits for any more fails with is nobody's news:
// the log may be gone.
func TestNothingIsLoggedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, exporter := &transcript.Transcript{}, late{make(chan struct{}), make(chan struct{})}
		tracing, err := Open(t.Context(), Config{Sample: 1, Log: slog.New(slog.NewTextHandler(log, nil)), Exporter: exporter})
		if err != nil {
			t.Fatal(err)
		}
		_, span := tracing.Provider().Tracer("test").Start(t.Context(), "span")
		span.End()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tracing.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		close(exporter.fail)
		<-exporter.over
		if said := log.String(); said != "" {
			t.Errorf("after the end it said %s", said)
		}
	})
}

// Whether a trace is kept is decided here, whatever its caller decided.
func TestCallersDoNotDecideWhatIsKept(t *testing.T) {
	for sample, want := range map[float64]bool{1: true, 1e-9: false} {
		for _, flags := range []trace.TraceFlags{0, trace.FlagsSampled} {
			kept := tracetest.NewInMemoryExporter()
			tracing, err := Open(t.Context(), Config{Sample: sample, Log: slog.New(slog.DiscardHandler), Exporter: held{kept}})
			if err != nil {
				t.Fatal(err)
			}
			remote := trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{0: 0xff, 8: 0xff}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true,
			}))
			_, end := tracing.Leases().Attempt(t.Context(), lease.Attempt{For: []context.Context{remote}})
			end(nil)
			if err := tracing.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(kept.GetSpans()) > 0; got != want {
				t.Errorf("with %v of all traces and flags %v: kept %v", sample, flags, got)
			}
		}
	}
}
