package client_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time pass, which inside testing/synctest takes none.
func pass(d time.Duration) { <-time.After(d) }

// start opens a source that ends with the test and logs to it.
func start(t *testing.T, config client.Config) *client.Source {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	source, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return source
}

// ready opens a source and waits for its first credential.
func ready(t *testing.T, broker *clienttest.Broker) *client.Source {
	t.Helper()
	source := start(t, broker.Config())
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return source
}

func mustCredential(t *testing.T, source *client.Source, grant string) client.Credential {
	t.Helper()
	c, err := source.Credential(grant)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantState fails unless the grant has no credential for that reason.
func wantState(t *testing.T, source *client.Source, grant string, state error, reason client.Reason) {
	t.Helper()
	c, err := source.Credential(grant)
	if !errors.Is(err, state) || client.ReasonOf(err) != reason {
		t.Fatalf("got %v, %v; want %v with reason %q", c, err, state, reason)
	}
	if c != (client.Credential{}) {
		t.Fatalf("an error came with a credential: %v", c)
	}
}

// dialers routes addresses to brokers in memory.
func dialers(brokers map[string]*clienttest.Broker) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		broker, ok := brokers[address]
		if !ok {
			return nil, errors.New("no route to host")
		}
		return broker.Dial(ctx, address)
	}
}

func eventually(t *testing.T, broker *clienttest.Broker, what string, done func(*clienttest.Broker) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := broker.Await(ctx, done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
