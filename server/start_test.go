package server_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// A storage that cannot be opened is an error at the start, and no more.
func TestStorageThatCannotBeOpened(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{})
	for name, storage := range map[string]server.StorageConfig{
		"a directory":       {SQLite: t.TempDir()},
		"no such directory": {SQLite: filepath.Join(t.TempDir(), "none", "stoker.db")},
		"nobody listens":    {Postgres: "postgres://stoker@127.0.0.1:1/stoker?connect_timeout=1"},
		"no address":        {Postgres: "postgres://stoker@127.0.0.1:none/stoker"},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.Config
			c.Storage = storage
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if _, err := server.New(ctx, c, slog.New(slog.DiscardHandler)); err == nil {
				t.Error("the broker started")
			}
		})
	}
}
