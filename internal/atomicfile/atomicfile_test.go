package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/atomicfile"
)

// content fails unless the directory has the file alone, with the content.
func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("it is %q, %v; want %q", got, err, want)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it is %v, %v", entries, err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for _, text := range []string{"first", "second and longer", ""} {
		if err := atomicfile.Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		content(t, path, text)
	}
	for _, mode := range []fs.FileMode{0o600, 0o644} {
		if err := atomicfile.Write(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
	}
}

// A link in the file's place is replaced and not followed, and where a file
// cannot be put the temporary one goes away too.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	if err := atomicfile.Write(filepath.Join(dir, "missing", "key"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	path := filepath.Join(dir, "key")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil {
		t.Error("it replaced a directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestStage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := atomicfile.Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	staged, err := atomicfile.Stage(path, make([]byte, 8192), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("it changed to %q, %v", got, err)
	}
	if err := staged.Refill([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := staged.Place(); err != nil {
		t.Fatal(err)
	}
	content(t, path, "new")
	if err := staged.Discard(); err != nil {
		t.Error(err)
	}
	content(t, path, "new")

	if staged, err = atomicfile.Stage(path, []byte("never"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(staged.Discard(), staged.Discard()); err != nil {
		t.Error(err)
	}
	content(t, path, "new")
}

// What a crash leaves is removed, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.key")
	for range 3 {
		if _, err := atomicfile.Stage(path, []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := atomicfile.Stage(filepath.Join(dir, "agent.pem"), []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Sweep(path); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || !strings.HasPrefix(entries[0].Name(), ".agent.pem.") || entries[1].Name() != "agent.key" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := atomicfile.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := atomicfile.TryLock(path); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		again, err := atomicfile.Lock(path)
		if err == nil {
			err = again()
		}
		got <- err
	}()
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := atomicfile.Lock(filepath.Join(path, "below")); err == nil {
		t.Error("a lock below a file")
	}
}
