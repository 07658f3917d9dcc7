package apierr_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
)

// The table in docs/errors.md is what the code does. With STOKER_UPDATE_DOCS
// set, the test writes it anew instead.
func TestErrorsAreDocumented(t *testing.T) {
	const path = "../../../docs/errors.md"
	var table strings.Builder
	table.WriteString("| reason | code | waiting helps | meaning |\n|---|---|---|---|\n")
	for _, row := range reason.Table {
		waiting := "no"
		if row.Transient {
			waiting = "yes"
		}
		fmt.Fprintf(&table, "| `%s` | `%s` | %s | %s |\n", row.Reason, apierr.Code(row.Reason), waiting, row.Doc)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const start, end = "<!-- reasons -->\n", "<!-- /reasons -->\n"
	before, rest, ok := strings.Cut(string(text), start)
	documented, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	if documented == table.String() {
		return
	}
	if os.Getenv("STOKER_UPDATE_DOCS") == "" {
		t.Fatalf("%s is stale; run the test with STOKER_UPDATE_DOCS=1 and commit", path)
	}
	if err := os.WriteFile(path, []byte(before+start+table.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
