//go:build unix

package delivery

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
)

func TestLocal(t *testing.T) {
	supply := newShelf(credentialOf("photos"))
	socket := filepath.Join(t.TempDir(), "run", "agent.sock")
	if _, err := AskLocal(t.Context(), socket, "photos", 0); !errors.Is(err, ErrNoAgent) {
		t.Fatalf("without an agent: %v", err)
	}
	l, err := ListenLocal(socket, supply, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	want := credentialOf("photos")
	for _, grant := range []string{"photos", ""} {
		c, err := AskLocal(t.Context(), socket, grant, time.Minute)
		if err != nil || c.SecretAccessKey != want.SecretAccessKey || c.SessionToken != want.SessionToken || c.Expires.Sub(want.Expires).Abs() > 2*time.Second {
			t.Errorf("%q: %v, %v", grant, c, err)
		}
	}
	for grant, says := range map[string]string{"nothing": "GRANT_UNKNOWN", "photos": "TTL_TOO_SHORT"} {
		if _, err := AskLocal(t.Context(), socket, grant, 2*time.Hour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", grant, err)
		}
	}
	supply.fail("photos", client.ErrRevoked, &client.Error{Reason: client.ReasonGrantDisabled, Message: "ask the provider"})
	if _, err := AskLocal(t.Context(), socket, "photos", 0); err == nil || !strings.Contains(err.Error(), "GRANT_DISABLED") || errors.Is(err, ErrNoAgent) {
		t.Errorf("revoked: %v", err)
	}
	l.Handle("/v1/else", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "hello") }))
	if body, err := AskLocalFor(t.Context(), socket, "/v1/else"); err != nil || string(body) != "\"hello\"\n" {
		t.Errorf("something else: %q, %v", body, err)
	}
	var refusal Refusal
	if _, err := AskLocalFor(t.Context(), socket, "/v1/other"); !errors.As(err, &refusal) || !refusal.Unknown() {
		t.Errorf("something unknown: %v", err)
	}
	if _, err := ListenLocal(socket, supply, nil); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := AskLocal(t.Context(), socket, "photos", 0); !errors.Is(err, ErrNoAgent) {
		t.Errorf("after the end: %v", err)
	}
}

// TestLocalLeftovers: a dead agent's socket is replaced, anything else is not.
func TestLocalLeftovers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ListenLocal(dead, newShelf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenLocal(plain, newShelf(), nil); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("on a file: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenLocal(dead, newShelf(), nil); err == nil || !strings.Contains(err.Error(), "open to other users") {
		t.Errorf("in an open directory: %v", err)
	}
}

func TestReadAnswer(t *testing.T) {
	for _, body := range []string{"", "{}", `{"AccessKeyId":"A","SecretAccessKey":"S","Token":"","Expiration":"2026-11-23T12:00:00Z"}`, `{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T"}`} {
		if c, err := readAnswer(200, "photos", []byte(body)); err == nil || c != (client.Credential{}) {
			t.Errorf("%s: %v, %v", body, c, err)
		}
	}
	if _, err := readAnswer(500, "photos", []byte("garbage")); err == nil {
		t.Error("an error without JSON is none")
	}
}

func TestKeepToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "token")
	token, err := KeepToken(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if text := read(t, file); text != token || strings.ContainsAny(text, "\r\n") {
		t.Errorf("the file has %q", text)
	}
	if again, err := KeepToken(file); err != nil || again != token {
		t.Errorf("the second time: %v", err)
	}
	if err := os.WriteFile(file, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if renewed, err := KeepToken(file); err != nil || renewed == token || !wellFormed(renewed) {
		t.Errorf("of a malformed file: %q, %v", renewed, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := KeepToken(file); err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) {
		t.Errorf("of an open file: %v", err)
	}
	if _, err := KeepToken(t.TempDir()); err == nil {
		t.Error("a directory is taken for a file")
	}
}

func TestTrusted(t *testing.T) {
	for _, c := range []struct {
		owner uint32
		user  int
		want  bool
	}{
		{1000, 1000, true}, // one's own
		{0, 1000, true},    // root's
		{1000, 0, true},    // root asks
		{1001, 1000, false},
	} {
		if got := trusted(c.owner, c.user); got != c.want {
			t.Errorf("user %d asks an agent of %d: %v", c.user, c.owner, got)
		}
	}
}
