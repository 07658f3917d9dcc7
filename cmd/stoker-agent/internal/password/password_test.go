package password

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/zalando/go-keyring"
)

// write makes a file with that mode.
func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil { // past the umask
		t.Fatal(err)
	}
	return file
}

func TestFile(t *testing.T) {
	file := write(t, "password", "first\n", 0o600)
	source, err := File(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(want+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := source(t.Context()); err != nil || got != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := source(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

func TestFileRefused(t *testing.T) {
	for says, file := range map[string]string{
		"is empty":              write(t, "empty", "\n", 0o600),
		"over 4096 bytes":       write(t, "long", strings.Repeat("CANARY", 1000), 0o600),
		"not a regular file":    t.TempDir(),
		"no such file":          filepath.Join(t.TempDir(), "none"),
		"run chmod 600 /":       write(t, "open", "CANARY", 0o644),
		"every user of this ma": write(t, "writable", "CANARY", 0o602),
	} {
		if runtime.GOOS == "windows" && (says[:3] == "run" || says[:3] == "eve") {
			continue // it knows no modes
		}
		_, err := File(file)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestCredential(t *testing.T) {
	file := write(t, "nightly", "secret", 0o400)
	t.Setenv(credentialsVariable, filepath.Dir(file))
	source, err := Credential("nightly")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := source(t.Context()); err != nil || got != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	if !HasCredential("nightly") || HasCredential("other") {
		t.Error("HasCredential is wrong")
	}
	for _, name := range []string{"", "..", "../nightly", "a/b", "other"} {
		if _, err := Credential(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	t.Setenv(credentialsVariable, "")
	if _, err := Credential("nightly"); err == nil || !strings.Contains(err.Error(), "LoadCredential=nightly:FILE") {
		t.Errorf("without systemd: %v", err)
	}
	if HasCredential("nightly") {
		t.Error("there is none")
	}
}

func TestSystemKeyring(t *testing.T) {
	keyring.MockInit()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
	k := System()
	if _, err := k.Get("nightly@acme"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("an empty one: %v", err)
	}
	if err := k.Set("nightly@acme", "secret"); err != nil {
		t.Fatal(err)
	}
	source, err := FromKeyring(t.Context(), k, "nightly@acme")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := source(t.Context()); err != nil || got != "secret" || !Has(t.Context(), k, "nightly@acme") {
		t.Errorf("got %q, %v", got, err)
	}
	if err := k.Delete("nightly@acme"); err != nil {
		t.Fatal(err)
	}
	if err := k.Delete("nightly@acme"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("twice: %v", err)
	}
	if _, err := source(t.Context()); err == nil || !strings.Contains(err.Error(), "stoker-agent login") {
		t.Errorf("without an entry: %v", err)
	}
	if _, err := FromKeyring(t.Context(), k, "nightly@acme"); err == nil || !strings.Contains(err.Error(), "stoker-agent login") {
		t.Errorf("without an entry at the start: %v", err)
	}
}

// stuck is a keyring that is locked and asks a person who is not there.
type stuck struct {
	until chan struct{}
	asked *atomic.Int64
}

func (s stuck) Get(string) (string, error) {
	s.asked.Add(1)
	<-s.until
	return "", errors.New("too late")
}
func (stuck) Set(string, string) error { return nil }
func (stuck) Delete(string) error      { return nil }

func TestStuckKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := stuck{make(chan struct{}), new(atomic.Int64)}
		defer close(k.until)
		source, err := FromKeyring(t.Context(), k, "nightly@acme")
		if err != nil {
			t.Errorf("a locked one at the start: %v", err)
		}
		if _, err := source(t.Context()); err == nil || !strings.Contains(err.Error(), "locked") {
			t.Errorf("a locked one: %v", err)
		}
		if n := k.asked.Load(); n != 1 {
			t.Errorf("%d questions are open at once: each later one is for nothing, and stays", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := source(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("at the end: %v", err)
		}
		if Has(t.Context(), k, "nightly@acme") {
			t.Error("it has one")
		}
	})
}
