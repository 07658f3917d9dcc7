package apierr_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/docpage"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
)

// The table in docs/errors.md is what the code does. With STOKER_UPDATE_DOCS
// set, the test writes it anew instead.
func TestErrorsAreDocumented(t *testing.T) {
	var table strings.Builder
	table.WriteString("| reason | code | waiting helps | meaning |\n|---|---|---|---|\n")
	for _, row := range reason.Table {
		waiting := "no"
		if row.Transient {
			waiting = "yes"
		}
		fmt.Fprintf(&table, "| `%s` | `%s` | %s | %s |\n", row.Reason, apierr.Code(row.Reason), waiting, row.Doc)
	}
	if err := docpage.Keep("../../../docs/errors.md", "reasons", table.String()); err != nil {
		t.Error(err)
	}
}
