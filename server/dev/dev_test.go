package dev

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/transcript"
)

func TestNext(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:8443": "127.0.0.1:8444", "localhost:0": "localhost:0", "[::1]:1": "[::1]:2",
		"0.0.0.0:8443": "", ":8443": "", "example.com:8443": "", "127.0.0.1": "", "127.0.0.1:65535": "", "127.0.0.1:http": "",
	} {
		if got, err := next(listen); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", listen, got, err)
		}
	}
}

// Development mode makes what its banner names, and takes it away at its end.
func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	out := &transcript.Transcript{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Dir: dir, Listen: "127.0.0.1:0", Lifetime: time.Minute, Method: "federation_token", Out: out})
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(out.String(), "Control-C stops it") {
		select {
		case err := <-ended:
			t.Fatalf("it ended with %v", err)
		case <-tick.C:
		}
	}
	for _, name := range []string{"env", "operator", "password", "ca.pem", "agent.pem", "agent.key", "admin.pem", "admin.key", "restorer.pem", "restorer.key"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(out.String(), "enrollment 127.0.0.1:") {
		t.Errorf("it says\n%s", out)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// A directory with somebody's files is left alone.
func TestRunLeavesOthersFilesAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{Dir: dir, Listen: "127.0.0.1:0", Lifetime: time.Minute, Method: "federation_token", Out: &transcript.Transcript{}})
	if err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
