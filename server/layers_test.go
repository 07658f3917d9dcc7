package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stokerd/stoker/internal/loopback"
	"github.com/stokerd/stoker/internal/transcript"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
)

// odd is a service that misbehaves as it is told.
type odd struct {
	stokerv1.UnimplementedSessionServiceServer
	stokerv1.UnimplementedCredentialServiceServer
	do func() error
}

func (o odd) GetSession(context.Context, *stokerv1.GetSessionRequest) (*stokerv1.GetSessionResponse, error) {
	return &stokerv1.GetSessionResponse{}, o.do()
}

func (o odd) StreamCredentials(grpc.BidiStreamingServer[stokerv1.StreamCredentialsRequest, stokerv1.StreamCredentialsResponse]) error {
	return o.do()
}

// layered serves odd behind the broker's layers, without TLS.
func layered(t *testing.T, let gate, do func() error) (*grpc.ClientConn, *transcript.Transcript) {
	t.Helper()
	log := &transcript.Transcript{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	calls := newCallMetrics()
	s := grpc.NewServer(chain(layers(logger, calls, let))...)
	stokerv1.RegisterSessionServiceServer(s, odd{do: do})
	stokerv1.RegisterCredentialServiceServer(s, odd{do: do})
	calls.add(s)
	return loopback.Dial(t, loopback.Serve(t, s)), log
}

func open(ctx context.Context, _ string) (context.Context, error) { return ctx, nil }

// both makes a unary and a streaming call, and gives their errors.
func both(t *testing.T, conn *grpc.ClientConn, header *metadata.MD) map[string]error {
	t.Helper()
	_, unary := stokerv1.NewSessionServiceClient(conn).GetSession(t.Context(), &stokerv1.GetSessionRequest{}, grpc.Header(header))
	stream, err := stokerv1.NewCredentialServiceClient(conn).StreamCredentials(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	return map[string]error{"unary": unary, "stream": err}
}

func TestPanicsAndUnknownErrorsTellTheCallerNothing(t *testing.T) {
	for name, do := range map[string]func() error{
		"a panic":          func() error { panic("canary-in-a-panic") },
		"an unknown error": func() error { return errors.New("canary in an error: dial 10.0.0.1") },
	} {
		t.Run(name, func(t *testing.T) {
			conn, log := layered(t, open, do)
			var header metadata.MD
			for kind, err := range both(t, conn, &header) {
				st := status.Convert(err)
				if st.Code() != codes.Internal || strings.Contains(st.Proto().String(), "canary") {
					t.Errorf("%s: the caller got %v", kind, st)
				}
				if apierr.Reason(st) != reason.Internal {
					t.Errorf("%s: no reason in %v", kind, st.Details())
				}
				id := ""
				for _, d := range st.Details() {
					if r, ok := d.(*errdetails.RequestInfo); ok {
						id = r.GetRequestId()
					}
				}
				if id == "" || !strings.Contains(log.String(), id) {
					t.Errorf("%s: the request id %q is not in the log", kind, id)
				}
			}
			if len(header.Get(requestIDHeader)) != 1 {
				t.Errorf("the answer's header has no request id: %v", header)
			}
			if !strings.Contains(log.String(), "canary") {
				t.Error("the log does not have what the caller does not learn")
			}
		})
	}
}

// What reads certificates, passwords and tokens must not end the broker either.
func TestAPanicInTheGate(t *testing.T) {
	panics := func(context.Context, string) (context.Context, error) { panic("canary") }
	conn, log := layered(t, panics, func() error { t.Error("a handler ran"); return nil })
	for kind, err := range both(t, conn, &metadata.MD{}) {
		if st := status.Convert(err); apierr.Reason(st) != reason.Internal || strings.Contains(st.Proto().String(), "canary") {
			t.Errorf("%s: %v", kind, st)
		}
	}
	if !strings.Contains(log.String(), "canary") {
		t.Error("the panic is not in the log")
	}
}

func TestRefusalsHaveTheirReasonAndOneLogLine(t *testing.T) {
	conn, log := layered(t, open, func() error { return reason.New(reason.GrantUnknown, "no such grant") })
	for kind, err := range both(t, conn, &metadata.MD{}) {
		if st := status.Convert(err); st.Code() != codes.NotFound || apierr.Reason(st) != reason.GrantUnknown {
			t.Errorf("%s: %v", kind, st)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d log lines for two calls:\n%s", n, log)
	}
	if !strings.Contains(log.String(), "GRANT_UNKNOWN") {
		t.Error("the log does not have the reason")
	}
}

func TestTheGateStandsBeforeEveryHandler(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	shut := func(_ context.Context, method string) (context.Context, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, method)
		return nil, reason.New(reason.CallNotAllowed, "no")
	}
	conn, _ := layered(t, shut, func() error { t.Error("a handler ran"); return nil })
	for kind, err := range both(t, conn, &metadata.MD{}) {
		if apierr.Reason(status.Convert(err)) != reason.CallNotAllowed {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if len(asked) != 2 || asked[0] != stokerv1.SessionService_GetSession_FullMethodName || asked[1] != stokerv1.CredentialService_StreamCredentials_FullMethodName {
		t.Errorf("the gate was asked about %v", asked)
	}
}

// A call that reached the gate without a verified certificate is refused,
// whatever let it through.
func TestNoCertificateNoCall(t *testing.T) {
	conn, _ := layered(t, members("test.example", nil, nil), func() error { t.Error("a handler ran"); return nil })
	for kind, err := range both(t, conn, &metadata.MD{}) {
		if apierr.Reason(status.Convert(err)) != reason.CertificateRequired {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestCallsAreCounted(t *testing.T) {
	calls := newCallMetrics()
	server := grpc.NewServer()
	stokerv1.RegisterSessionServiceServer(server, odd{})
	stokerv1.RegisterCredentialServiceServer(server, odd{})
	calls.add(server)
	a := layers(slog.New(slog.DiscardHandler), calls, open)
	info := &grpc.UnaryServerInfo{FullMethod: stokerv1.SessionService_GetSession_FullMethodName}
	for _, outcome := range []error{nil, reason.New(reason.GrantUnknown, "no such grant"), status.Error(99, "no code of gRPC's")} {
		_, _ = a.unary(grpc.NewContextWithServerTransportStream(t.Context(), &stoppedStream{}), nil, info,
			func(context.Context, any) (any, error) { return nil, outcome })
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(calls)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[len(m.GetLabel())-1].GetValue() == "" {
				t.Errorf("%s has an empty label", f.GetName())
			}
			series := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() == "grpc_method" || l.GetName() == "grpc_code" {
					series += " " + l.GetValue()
				}
			}
			got[series] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for series, want := range map[string]float64{
		"grpc_server_started_total GetSession": 3, "grpc_server_handling_seconds GetSession": 3,
		"grpc_server_handled_total OK GetSession": 1, "grpc_server_handled_total NotFound GetSession": 1,
		"grpc_server_handled_total Unknown GetSession": 1, "grpc_server_handled_total OK StreamCredentials": 0,
	} {
		if n, ok := got[series]; !ok || n != want {
			t.Errorf("%s is %v (%v), not %v", series, n, ok, want)
		}
	}
}

// stoppedStream is a transport that takes headers and has nothing else.
type stoppedStream struct{ grpc.ServerTransportStream }

func (stoppedStream) Method() string              { return "" }
func (stoppedStream) SetHeader(metadata.MD) error { return nil }
