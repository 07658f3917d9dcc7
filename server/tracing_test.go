package server_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/stokerd/stoker/internal/loopback"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	url string

	mu    sync.Mutex
	spans []*tracev1.Span
	// all is everything that came, in clear.
	all strings.Builder
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	c.url = "http://" + loopback.Serve(t, s)
	return c
}

// Export implements the collector's service.
func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.WriteString(prototext.Format(r))
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// of gives the spans of a trace by name, with the name of each one's parent.
func (c *collector) of(traceID string) map[string]string {
	names := map[string]string{}
	for _, s := range c.spans {
		names[string(s.GetSpanId())] = s.GetName()
	}
	found := map[string]string{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == traceID {
			parent, ok := names[string(s.GetParentSpanId())]
			if !ok && len(s.GetParentSpanId()) > 0 {
				parent = "the caller's"
			}
			found[s.GetName()] = parent
		}
	}
	return found
}

// traced puts a call into a trace of the caller's.
func traced(ctx context.Context, traceID string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+traceID+"-00f067aa0ba902b7-01")
}

// One trace leads from the agent's call to the call to STS and the audit
// record, and no secret is in any.
func TestTracing(t *testing.T) {
	c := startCollector(t)
	b := site(t, brokertest.Options{Configure: func(config *server.Config) {
		config.Tracing = server.TracingConfig{Endpoint: c.url, Sample: 1}
	}})
	const ofCall, ofStream, ofRefusal = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736", "6bf92f3577b34da6a3ce929d0e0e4736"
	one, two := join(t, b, "one", time.Hour), join(t, b, "two", time.Hour)
	session := one.session(t)
	got, err := stokerv1.NewCredentialServiceClient(session.conn).GetCredentials(traced(session.ctx(t), ofCall), &stokerv1.GetCredentialsRequest{})
	wantOK(t, err)
	ctx, cancel := context.WithCancel(traced(two.ctx(t), ofStream))
	defer cancel()
	stream, err := stokerv1.NewCredentialServiceClient(two.conn).StreamCredentials(ctx)
	wantOK(t, err)
	wantOK(t, stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}}))
	var pushed *stokerv1.Credential
	for pushed == nil {
		m, err := stream.Recv()
		wantOK(t, err)
		pushed = m.GetCredential()
	}
	const wrong = "a wrong and rather secret password"
	wantReason(t, one.with(b, b.Certify("one", "laptop")).whoami(traced(brokertest.Basic(t.Context(), "backup@one", wrong), ofRefusal)), reason.LoginRejected)
	cancel()
	b.Stop() // which sends what is left

	const get = "stoker.v1.CredentialService/GetCredentials"
	want := map[string]string{get: "the caller's", "issue": get, "sts GetFederationToken": "issue", "audit append": "issue"}
	if found := c.of(ofCall); !maps.Equal(found, want) {
		t.Errorf("of the call there are %v, want %v", found, want)
	}
	want = map[string]string{"issue": "the caller's", "sts GetFederationToken": "issue", "audit append": "issue"}
	if found := c.of(ofStream); !maps.Equal(found, want) {
		t.Errorf("of the stream there are %v, want %v", found, want)
	}
	if found := c.of(ofRefusal); found["stoker.v1.SessionService/GetSession"] != "the caller's" {
		t.Errorf("of the refusal there are %v", found)
	}
	all := c.all.String()
	for _, shown := range []string{"stokerd", "stoker.credential_id", got.GetCredentials()[0].GetId(), pushed.GetId(), "credential.issued"} {
		if !strings.Contains(all, shown) {
			t.Errorf("the spans do not show %q", shown)
		}
	}
	nothingOf(t, "the spans", all, map[string]string{
		"password": one.password, "other password": two.password, "wrong password": wrong, "access token": session.token,
		"secret key": got.GetCredentials()[0].GetSecretAccessKey(), "session token": got.GetCredentials()[0].GetSessionToken(),
		"pushed secret key": pushed.GetSecretAccessKey(), "pushed session token": pushed.GetSessionToken(),
	})
}

// What a client can choose makes no spans: paths that are not served, and a
// trace that it wants kept where few are.
func TestTracingIsNotSteeredByClients(t *testing.T) {
	c := startCollector(t)
	b := site(t, brokertest.Options{Configure: func(config *server.Config) {
		config.Tracing = server.TracingConfig{Endpoint: c.url, Sample: 1e-9}
	}})
	a := join(t, b, "one", time.Hour)
	for i := range 20 {
		_ = a.conn.Invoke(t.Context(), fmt.Sprint("/made.up/Path", i), &stokerv1.GetSessionRequest{}, &stokerv1.GetSessionResponse{})
		wantOK(t, a.whoami(traced(a.ctx(t), fmt.Sprintf("ffffffffffffffffffffffffffff%04x", i))))
	}
	b.Stop()
	if len(c.spans) > 0 {
		t.Errorf("%d spans came", len(c.spans))
	}
}

// A collector that is away holds nothing up, at the end neither.
func TestTracingWithoutItsCollector(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(config *server.Config) {
		config.Tracing = server.TracingConfig{Endpoint: "http://127.0.0.1:1", Sample: 1}
	}})
	join(t, b, "one", time.Hour).works(t)
	began := time.Now()
	b.Stop()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestTracingConfiguration(t *testing.T) {
	for endpoint, wrong := range map[string]string{
		"https://collector.example.com:4317": "", "http://127.0.0.1:4317": "",
		"collector:4317": "tracing.endpoint: is no URL", "https://user:hunter2@collector": "tracing.endpoint: is no URL", "https://": "tracing.endpoint: is no URL",
	} {
		_, err := server.Parse("stoker.yaml", []byte(minimal+"tracing: {endpoint: \""+endpoint+"\"}\n"))
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	for _, section := range []string{"{sample: 0.5}", "{endpoint: https://c, sample: 1.5}", "{endpoint: https://c, sample: -1}", "{endpoint: https://c, sample: .nan}"} {
		if _, err := server.Parse("stoker.yaml", []byte(minimal+"tracing: "+section+"\n")); err == nil {
			t.Errorf("%s is taken", section)
		}
	}
	c, err := server.Parse("stoker.yaml", []byte(minimal+"tracing: {endpoint: https://c}\n"))
	if err != nil || c.Tracing.Sample != 1 {
		t.Errorf("the default: %v, %v", c.Tracing, err)
	}
}
