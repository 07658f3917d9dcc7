package clienttest_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestInMemory is a test as a vendor writes it: hours of renewals in no time.
func TestInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos"))
		source, err := client.New(t.Context(), broker.Config())
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		for range 12 {
			pushed := broker.Push("photos", time.Hour)
			<-time.After(40 * time.Minute)
			if got, err := source.Credential("photos"); err != nil || got.SecretAccessKey != pushed.SecretAccessKey {
				t.Fatalf("got %v, %v", got, err)
			}
		}
	})
}

// TestOverTCP uses files, a real socket, and an address that survives a restart.
func TestOverTCP(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithLifetime(20*time.Minute))
	files := broker.Files(t.TempDir())
	for _, name := range []string{files.Key, files.Password} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	config := broker.Config()
	config.TLS = nil
	config.CAFile, config.CertFile, config.KeyFile = files.CA, files.Cert, files.Key
	before := broker.Address()
	broker.Stop()
	if _, err := client.Fetch(t.Context(), config, 0); err == nil {
		t.Error("a stopped broker answers")
	}
	broker.Start()
	if broker.Address() != before {
		t.Errorf("it moved from %s to %s", before, broker.Address())
	}
	source, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := broker.Await(ctx, func(b *clienttest.Broker) bool { return len(b.Acknowledged()) == 1 }); err != nil {
		t.Error(err)
	}
	expired, stop := context.WithCancel(t.Context())
	stop()
	if err := broker.Await(expired, func(*clienttest.Broker) bool { return false }); err == nil {
		t.Error("it waited for nothing")
	}
}
