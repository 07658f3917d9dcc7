package directory_test

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/directory"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// open opens a directory that nothing follows yet.
func open(t testing.TB, store directory.Store) *directory.Directory {
	t.Helper()
	d, err := directory.Open(t.Context(), store, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run follows the store until stop is called or the test ends.
func run(t testing.TB, d *directory.Directory) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func start(t testing.TB, store directory.Store) *directory.Directory {
	d := open(t, store)
	run(t, d)
	return d
}

func synced(t testing.TB, d *directory.Directory) {
	t.Helper()
	if err := d.Sync(t.Context()); err != nil {
		t.Fatalf("Sync: %v", err)
	}
}

func meta(id string) storage.Meta { return storage.Meta{ID: id, Revision: 1} }
