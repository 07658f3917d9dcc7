package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/docpage"
)

const page = "../../../../docs/agent.md"

// docs/agent.md lists every key. With STOKER_UPDATE_DOCS set, the test writes the
// tables anew instead.
func TestKeysAreDocumented(t *testing.T) {
	tables, err := docpage.Keys("config.go", "###", map[string]string{"users": "LOGIN"})
	if err != nil {
		t.Fatal(err)
	}
	if err := docpage.Keep(page, "keys", tables); err != nil {
		t.Error(err)
	}
}

// Every example on the page is a file that works.
func TestExamplesWork(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	clienttest.New(t).Files(dir)
	if err := os.WriteFile(filepath.Join(dir, "reload"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```yaml\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%s has %d examples", page, len(blocks))
	}
	for _, block := range blocks {
		example, _, _ := strings.Cut(block, "```")
		example = strings.NewReplacer("/var/lib/stoker-agent", dir, "/etc/stoker", dir, "/usr/local/bin", dir).Replace(example)
		if _, err := read(t, dir, example); err != nil {
			t.Errorf("an example does not work: %v\n%s", err, example)
		}
	}
}
