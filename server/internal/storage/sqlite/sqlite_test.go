package sqlite

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/storagetest"
)

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// emptyDatabase gives the bytes of a database that has only been made. Making
// one costs more than most cases of the suite.
func emptyDatabase(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stoker.db")
	s, err := Open(t.Context(), path, logger(t))
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestConformance(t *testing.T) {
	empty := emptyDatabase(t)
	storagetest.Run(t, storagetest.Harness{Fresh: func(t *testing.T) storagetest.Opener {
		path := filepath.Join(t.TempDir(), "stoker.db")
		if err := os.WriteFile(path, empty, 0o600); err != nil {
			t.Fatal(err)
		}
		return func(t *testing.T, o storagetest.Options) storage.Store {
			t.Helper()
			s, err := open(t.Context(), path, logger(t), o.KeepChanges)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}})
}
