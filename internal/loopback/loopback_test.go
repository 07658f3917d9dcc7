package loopback_test

import (
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/stokerd/stoker/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServeUntilTheTestEnds(t *testing.T) {
	var address string
	t.Run("serves", func(t *testing.T) {
		s := grpc.NewServer()
		healthv1.RegisterHealthServer(s, health.NewServer())
		address = loopback.Serve(t, s)
		conn := loopback.Dial(t, address)
		if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	})
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Errorf("%s is served after the test", address)
	}
}

// The test may end both by itself, even before the serving has begun.
func TestEndedBefore(t *testing.T) {
	s := grpc.NewServer()
	conn := loopback.Dial(t, loopback.Serve(t, s))
	s.Stop()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
