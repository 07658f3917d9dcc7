package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

func newTenant(t *testing.T, s *sqlite.Store, name string) {
	t.Helper()
	if _, err := s.CreateTenant(t.Context(), storage.Tenant{Meta: storage.Meta{ID: uuid.NewString()}, Name: name}); err != nil {
		t.Fatal(err)
	}
}

// A backup has what was committed when it was made, while the database is in
// use, and is a database itself.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "stoker.db"), filepath.Join(dir, "a backup?.db")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := sqlite.Open(t.Context(), path, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	newTenant(t, s, "before")
	if err := sqlite.Backup(t.Context(), path, to); err != nil {
		t.Fatal(err)
	}
	newTenant(t, s, "after")
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info.Mode(), err)
	}
	restored, err := sqlite.Open(t.Context(), to, log)
	if err != nil {
		t.Fatal(err)
	}
	found, err := restored.ListTenants(t.Context(), storage.Page{Limit: 10})
	if err != nil || len(found) != 1 || found[0].Name != "before" {
		t.Errorf("the backup has %v, %v", found, err)
	}
	if err := restored.Close(); err != nil {
		t.Error(err)
	}
}

func TestBackupRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := filepath.Join(dir, "stoker.db")
	s, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	precious, to := file("precious", "text"), filepath.Join(dir, "new.db")
	strangers := filepath.Join(dir, "strangers.db")
	db, err := sql.Open("sqlite", strangers)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA journal_mode = WAL; CREATE TABLE theirs (a)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx      context.Context
		from, to string
		says     string
	}{
		"none":             {t.Context(), filepath.Join(dir, "none"), to, "none"},
		"no database":      {t.Context(), precious, to, "not a SQLite database"},
		"another's":        {t.Context(), strangers, to, "not a broker's"},
		"over a file":      {t.Context(), path, precious, "exist"},
		"onto itself":      {t.Context(), path, path, "exist"},
		"into no place":    {t.Context(), path, filepath.Join(dir, "none", "new.db"), "none"},
		"when it is ended": {ended, path, to, "cancel"},
	} {
		err := sqlite.Backup(c.ctx, c.from, c.to)
		if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s leaves a file behind: %v", name, err)
		}
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "text" {
		t.Errorf("the precious file has %q, %v", text, err)
	}
}
