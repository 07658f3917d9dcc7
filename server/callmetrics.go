package server

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callMetrics counts calls, under the names that gRPC's dashboards know. A
// method's series are looked up once, not with each call and message.
type callMetrics struct {
	started, handled, received, sent *prometheus.CounterVec
	seconds                          *prometheus.HistogramVec
	// methods is complete before the first call, and not changed any more.
	methods map[string]*methodMetrics
}

// methodMetrics are the series of one method.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	handled                 [codes.Unauthenticated + 1]prometheus.Counter
	seconds                 prometheus.Observer
}

func newCallMetrics() *callMetrics {
	of := []string{"grpc_type", "grpc_service", "grpc_method"}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(of[:3:3], labels...))
	}
	return &callMetrics{
		started:  count("grpc_server_started_total", "Calls that began."),
		handled:  count("grpc_server_handled_total", "Calls that ended, by status code.", "grpc_code"),
		received: count("grpc_server_msg_received_total", "Messages received on streams."),
		sent:     count("grpc_server_msg_sent_total", "Messages sent on streams."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long calls took.", Buckets: prometheus.DefBuckets,
		}, of),
		methods: map[string]*methodMetrics{},
	}
}

// add makes the series of all methods of a server, at zero. It must be called
// before the server serves.
func (m *callMetrics) add(s *grpc.Server) {
	for service, info := range s.GetServiceInfo() {
		for _, method := range info.Methods {
			m.methods["/"+service+"/"+method.Name] = m.method(kindOf(method), service, method.Name)
		}
	}
}

func (m *callMetrics) method(labels ...string) *methodMetrics {
	made := &methodMetrics{
		started: m.started.WithLabelValues(labels...), seconds: m.seconds.WithLabelValues(labels...),
		received: m.received.WithLabelValues(labels...), sent: m.sent.WithLabelValues(labels...),
	}
	for code := range made.handled {
		made.handled[code] = m.handled.WithLabelValues(append(labels[:3:3], codes.Code(code).String())...)
	}
	return made
}

func kindOf(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	default:
		return "unary"
	}
}

func (m *callMetrics) enter(ctx context.Context, c *call) (context.Context, error) {
	if c.counted = m.methods[c.method]; c.counted != nil {
		c.counted.started.Inc()
	}
	return ctx, nil
}

func (m *callMetrics) leave(_ context.Context, c *call, err error) error {
	if c.counted != nil {
		code := status.Code(err)
		if int(code) >= len(c.counted.handled) {
			code = codes.Unknown
		}
		c.counted.handled[code].Inc()
		c.counted.seconds.Observe(time.Since(c.began).Seconds())
	}
	return err
}

// Describe implements prometheus.Collector.
func (m *callMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *callMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

func (m *callMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.started, m.handled, m.received, m.sent, m.seconds}
}

// split divides a full method name into service and method.
func split(full string) (service, method string) {
	service, method, _ = strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return service, method
}
