package server_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/docpage"
	"github.com/stokerd/stoker/server"
)

const configurationPage = "../docs/configuration.md"

// docs/configuration.md lists every key. With STOKER_UPDATE_DOCS set, the test
// writes the tables anew instead.
func TestConfigurationIsDocumented(t *testing.T) {
	tables, err := docpage.Keys("config.go", "##", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := docpage.Keep(configurationPage, "keys", tables); err != nil {
		t.Error(err)
	}
}

// The example on the page is a configuration that works.
func TestConfigurationExampleWorks(t *testing.T) {
	text, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(example, "```")
	if !found || !closed {
		t.Fatalf("%s has no example", configurationPage)
	}
	example = strings.ReplaceAll(example, "/etc/stoker/encryption.key", "config.go")
	if _, err := server.Parse("example", []byte(example)); err != nil {
		t.Errorf("the example does not work: %v", err)
	}
}
