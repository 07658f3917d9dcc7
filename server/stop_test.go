package server_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// A stopping broker tells its streams when to come back, ends them with OK,
// and is not held up by watches that never end nor by an agent that does not
// read.
func TestStopDrainsStreams(t *testing.T) {
	b, password := acme(t, brokertest.Options{Configure: func(c *server.Config) { c.Drain = 3 * time.Second }}, time.Hour)
	login := brokertest.Basic(t.Context(), "backup@acme", password)
	open := func(name string) stokerv1.CredentialService_StreamCredentialsClient {
		t.Helper()
		stream, err := stokerv1.NewCredentialServiceClient(b.Dial(b.Agent("acme", name))).StreamCredentials(login)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}}); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	reader := open("reader")
	for {
		m, err := reader.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetCredential() != nil {
			break
		}
	}
	open("deaf") // never reads
	watch, err := grpc_health_v1.NewHealthClient(b.Admin).Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("health %v, %v", m, err)
	}

	stopped := make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(stopped)
		b.Stop()
	}()
	if m, err := watch.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while stopping: %v, %v", m, err)
	}
	told := false
	for {
		m, err := reader.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("the stream ended with %v", err)
			break
		}
		if r := m.GetReconnect(); r != nil {
			told = true
			if d := r.GetDelay().AsDuration(); d < 0 || d > 3*time.Second {
				t.Errorf("reconnect after %v is outside of the window", d)
			}
		}
	}
	if !told {
		t.Error("the stream ended without a word")
	}
	<-stopped
	t.Logf("stopped after %v", time.Since(begun))
}

// What New opened is closed again where a later step fails.
func TestNewUndoesItselfOnError(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{})
	taken := b.Config // the port is in use
	if _, err := server.New(t.Context(), taken, server.NewLogger(server.LogConfig{}, io.Discard)); err == nil {
		t.Fatal("a second broker on the same port was opened")
	}
	b.Restart() // would fail if the second one had kept the database locked
	b.Tenant("acme")
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*server.Config)
		want   string
	}{
		"another encryption key": {func(c *server.Config) {
			c.EncryptionKeyFile = filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(c.EncryptionKeyFile, []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "cannot be opened"},
		"a key that others can read": {func(c *server.Config) {
			c.EncryptionKeyFile = filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(c.EncryptionKeyFile, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "run chmod 600"},
		"another trust domain": {func(c *server.Config) { c.TrustDomain = "other.example" }, "a broker's trust domain cannot change"},
		"a bad region": {func(c *server.Config) {
			a := c.Accounts["main"]
			a.Region = "nowhere!"
			c.Accounts = map[string]server.AccountConfig{"main": a}
		}, "region"},
	} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.Start(t, brokertest.Options{})
			b.Stop()
			config := b.Config
			c.change(&config)
			_, err := server.New(t.Context(), config, server.NewLogger(server.LogConfig{}, io.Discard))
			if err == nil || !contains(err, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }
