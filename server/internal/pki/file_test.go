package pki_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/pki"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.key")
	if err := os.WriteFile(path, []byte("old and longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader := must[*os.File](t)(os.Open(path))
	defer func() { _ = reader.Close() }()
	if err := pki.WriteFile(path, []byte("new"), pki.KeyMode); err != nil {
		t.Fatal(err)
	}
	info := must[os.FileInfo](t)(os.Stat(path))
	if got := string(must[[]byte](t)(os.ReadFile(path))); got != "new" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q with mode %s", got, info.Mode())
	}
	// Whoever had it open still has the whole old content.
	old := make([]byte, 64)
	if n, _ := reader.Read(old); string(old[:n]) != "old and longer" {
		t.Errorf("an open reader got %q", old[:n])
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no directory": filepath.Join(dir, "absent", "x"), "a directory is there": taken} {
		if err := pki.WriteFile(path, []byte("canary"), pki.KeyMode); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}
