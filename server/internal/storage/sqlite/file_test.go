package sqlite

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// refused opens what must not open and returns the error's text.
func refused(t *testing.T, path string) string {
	t.Helper()
	s, err := Open(t.Context(), path, logger(t))
	if err == nil {
		mustClose(t, s)
		t.Fatalf("%s was opened", path)
	}
	if !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("error %v does not say ErrUnavailable", err)
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name the file", err)
	}
	return err.Error()
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode here")
	}
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "stoker.db"))
	defer mustClose(t, s)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("files: %v, want the database, its log and its shared memory", files)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode(); mode != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), mode)
		}
	}
}

func TestWarnsOfFilesOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode here")
	}
	path := filepath.Join(t.TempDir(), "stoker.db")
	mustClose(t, mustOpen(t, path))
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	s, err := Open(t.Context(), path, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "mode=0640") {
		t.Errorf("logged: %s", logged.String())
	}
}

func TestOddPaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, path := range []string{"relative.db", filepath.Join(dir, "a b?mode=ro#c%41&d=e.db"), ":memory:", "file:x.db", "é.db"} {
		if runtime.GOOS == "windows" && strings.ContainsAny(filepath.Base(path), "?:") {
			continue
		}
		mustClose(t, mustOpen(t, path))
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(absolute); err != nil || info.Size() == 0 {
			t.Errorf("%q was not made: %v, %v", path, info, err)
		}
	}
}

func TestRefusesWhatIsNotItsDatabase(t *testing.T) {
	dir := t.TempDir()
	if text := refused(t, filepath.Join(dir, "missing", "stoker.db")); !strings.Contains(text, "no such file or directory") && runtime.GOOS != "windows" {
		t.Error(text)
	}
	refused(t, dir)

	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a database. "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := refused(t, garbage); !strings.Contains(text, "not a SQLite database") {
		t.Error(text)
	}

	others := filepath.Join(dir, "others.db")
	db, err := connect(others, 1, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "CREATE TABLE tenants (name TEXT)")
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if text := refused(t, others); !strings.Contains(text, "another program's database") {
		t.Error(text)
	}
}

// Pages damaged on disk are an error of the calls that meet them, and never
// wrong data or a panic.
func TestDamagedPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	s := mustOpen(t, path)
	for from := int64(1); from <= 200; from += 50 {
		batch := issues("w", from, 50)
		err := s.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) { return batch, nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(content) / 2; i < len(content); i++ {
		content[i] = 0xa5
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), path, logger(t))
	if err == nil {
		defer mustClose(t, s)
		_, err = s.AuditChain(t.Context(), "w", 1, 1000)
	}
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error is %v", err)
	}
}

func TestOpenHonorsItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, filepath.Join(t.TempDir(), "stoker.db"), logger(t))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// The settings that durability and integrity rest on, as SQLite sees them.
func TestSettingsTakeEffect(t *testing.T) {
	db, err := connect(filepath.Join(t.TempDir(), "stoker.db"), 1, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
		"fullfsync": "1", "checkpoint_fullfsync": "1", "trusted_schema": "0", "wal_autocheckpoint": "4000",
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
}

func TestWarnsOfANewerBrokersTables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	mustClose(t, mustOpen(t, path))
	db, err := connect(path, 1, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	s, err := Open(t.Context(), path, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "tables=99") {
		t.Errorf("logged: %s", logged.String())
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Another process that holds the file's lock makes writes wait, and fail when
// their context ends first.
func TestFileLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	s := mustOpen(t, path)
	defer mustClose(t, s)
	other, err := connect(path, 1, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}()
	held, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping while locked: %v", err)
	}
	if _, err := s.Head(t.Context()); err != nil {
		t.Errorf("reading while locked: %v", err)
	}
	if err := held.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("ping after the lock: %v", err)
	}
}

// A row that a hand or a fault has changed is an error that names the column,
// for the calls that meet it.
func TestUnreadableRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stoker.db")
	s := mustOpen(t, path)
	defer mustClose(t, s)
	record := issues("w", 1, 1)
	record.Records[0].Detail = map[string]string{"k": "v"}
	if err := s.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) { return record, nil }); err != nil {
		t.Fatal(err)
	}
	db, err := connect(path, 1, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := db.ExecContext(t.Context(), "UPDATE audit_records SET rest = '{'"); err != nil {
		t.Fatal(err)
	}
	_, err = s.AuditChain(t.Context(), "w", 1, 10)
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "column rest") {
		t.Errorf("error is %v", err)
	}
}
