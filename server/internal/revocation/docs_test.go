package revocation_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

// The policy in docs/revocation.md is the one that is written.
func TestDocumentationShowsThePolicy(t *testing.T) {
	page, err := os.ReadFile("../../../docs/revocation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "<!-- policy: exact -->\n```json\n")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/revocation.md shows no policy")
	}
	var shown bytes.Buffer
	if err := json.Compact(&shown, []byte(block)); err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	const tenant = "0198f3a0-0000-7000-8000-000000000000"
	agent := revoke(1, "agent", "0198f3a0-0000-7000-8000-000000000001", tenant, noon)
	grant := revoke(2, "grant", "0198f3a0-0000-7000-8000-000000000002", tenant, noon)
	credential := revoke(3, "credential", "0198f3a0-0000-7000-8000-000000000003", tenant, noon)
	credential.SessionName = "stoker-03hag0m8fxlde2f922b554p8x"
	if d := revocation.Compose([]storage.Revocation{agent, grant, credential}, revocation.UserLimit); d.Text != shown.String() {
		t.Errorf("docs/revocation.md shows\n%s\nwritten is\n%s", shown.String(), d.Text)
	}
}
