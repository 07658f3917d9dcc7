package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/stokerd/stoker/internal/loopback"
	"github.com/stokerd/stoker/server/internal/admission"
)

// waiting is a health service that answers no call by itself.
type waiting struct {
	healthv1.UnimplementedHealthServer
}

func (waiting) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (waiting) Watch(_ *healthv1.HealthCheckRequest, s grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	select {
	case <-s.Context().Done():
		return s.Context().Err()
	case <-time.After(time.Second):
		return nil
	}
}

// A call that is no stream ends at its limit, whether it waits for the caller's
// message or for its handler; a stream does not.
func TestUnaryCallsAreLimited(t *testing.T) {
	exempt := endless{}
	s := grpc.NewServer(grpc.InTapHandle(limitUnary(exempt.has, 300*time.Millisecond)))
	healthv1.RegisterHealthServer(s, waiting{})
	exempt.add(s)
	conn := loopback.Dial(t, loopback.Serve(t, s))

	patient, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for of, ctx := range map[string]context.Context{"without an end of its own": t.Context(), "with a late one": patient} {
		_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
		if status.Code(err) != codes.DeadlineExceeded || patient.Err() != nil {
			t.Errorf("a slow handler, a call %s: %v", of, err)
		}
	}
	mute, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, healthv1.Health_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := mute.RecvMsg(&healthv1.HealthCheckResponse{}); status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Canceled {
		t.Errorf("a call without a message: %v", err)
	}
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("a stream: %v", err)
	}
}

// docs/limits.md gives each limit as it is.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what                 string
		main, forEnrollments any
	}{
		{"Connections of one address", defaultPerAddress, enrollPerAddress},
		{"New connections of one address, a second", leastPerSecond, enrollPerSecond},
		{"Connections in all", "descriptors - " + fmt.Sprint(spareDescriptors), enrollTotal},
		{"Handshakes in progress", fmt.Sprint(handshakesPerCore, " for each core"), enrollHandshakes},
		{"Streams at the gate", fmt.Sprint(entriesPerCore, " for each core"), "none"},
		{"Connections kept in reserve", spareConnections, "none"},
		{"A handshake, HTTP/2 preface included", handshakeLimit, handshakeLimit},
		{"The same while others wait for its place", handshakePatience, handshakePatience},
		{"A connection without a call", idleLimit, enrollIdle},
		{"A connection", "no limit", enrollAge + enrollGrace},
		{"Silence before a ping, and its answer", fmt.Sprintf("%s, %s", short(keepaliveAfter), short(keepaliveAnswer)), fmt.Sprintf("%s, %s", short(keepaliveAfter), short(keepaliveAnswer))},
		{"Between two pings of the client", keepaliveLeast, keepaliveLeast},
		{"Open calls of one connection", maxStreams, enrollStreams},
		{"Headers of one call", size(maxHeaderList), size(maxHeaderList)},
		{"One message", size(maxMessage), size(enrollMessage)},
		{"What one call may send unread", size(streamWindow), size(streamWindow)},
		{"A call that is no stream", unaryLimit, enrollAge + enrollGrace},
	} {
		row := fmt.Sprintf("| %s | %s | %s |", c.what, written(c.main), written(c.forEnrollments))
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/limits.md lacks %s", row)
		}
	}
}

func written(v any) string {
	if d, ok := v.(time.Duration); ok {
		return short(d)
	}
	return fmt.Sprint(v)
}

func short(d time.Duration) string { return fmt.Sprintf("%d s", int(d.Seconds())) }

func size(n int) string { return fmt.Sprintf("%d KiB", n>>10) }

func TestAddressLimitsFollowTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		connections int
		perSecond   float64
	}{{1, 50}, {1000, 50}, {20_000, 1000}} {
		l := Config{ConnectionsPerAddress: c.connections}.mainLimits()
		if l.PerAddress != c.connections || l.PerSecond != c.perSecond {
			t.Errorf("%d connections: %+v", c.connections, l)
		}
		if _, err := admission.New(bufconn.Listen(1), l, nil); err != nil {
			t.Error(err)
		}
	}
	with, without := Config{ConnectionsPerAddress: 1, Enrollment: &EnrollmentConfig{}}.mainLimits(), Config{ConnectionsPerAddress: 1}.mainLimits()
	if without.Total > descriptors()-spareDescriptors && without.Total != spareDescriptors || with.Total >= without.Total && with.Total != spareDescriptors {
		t.Errorf("%d descriptors, %d connections, %d with enrollment", descriptors(), without.Total, with.Total)
	}
	if _, err := admission.New(bufconn.Listen(1), enrollLimits(), nil); err != nil {
		t.Error(err)
	}
}
