package reason_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Each constant must have its row: a reason without one would reach clients
// undocumented and count as permanent.
func TestTableHasEveryReasonOnce(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[reason.Reason]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Reason" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared[reason.Reason(text)] = true
		}
		return true
	})
	if len(declared) < 40 {
		t.Fatalf("found only %d reasons in the source", len(declared))
	}
	seen := map[reason.Reason]bool{}
	for _, row := range reason.Table {
		if !declared[row.Reason] {
			t.Errorf("%s has a row and no constant", row.Reason)
		}
		if seen[row.Reason] {
			t.Errorf("%s stands twice", row.Reason)
		}
		seen[row.Reason] = true
		if !strings.HasSuffix(row.Doc, ".") {
			t.Errorf("%s: the sentence does not end", row.Reason)
		}
	}
	for r := range declared {
		if !seen[r] {
			t.Errorf("%s has no row", r)
		}
	}
}

func TestOf(t *testing.T) {
	cause := errors.New("dial 10.0.0.1: refused")
	err := reason.New(reason.STSUnavailable, "STS does not answer").Because(cause).After(time.Second).With("grant", "nightly")
	wrapped := fmt.Errorf("issuing: %w", err)
	switch {
	case reason.Of(wrapped) != reason.STSUnavailable:
		t.Errorf("Of = %s", reason.Of(wrapped))
	case !reason.Is(wrapped, reason.STSUnavailable), reason.Is(nil, reason.Internal):
		t.Error("Is is wrong")
	case !reason.Transient(wrapped), reason.Transient(reason.New(reason.GrantDeleted, "gone")):
		t.Error("Transient is wrong")
	case !errors.Is(wrapped, cause):
		t.Error("the cause is lost")
	case reason.Of(cause) != reason.Internal, reason.Of(nil) != "":
		t.Error("an error without a reason is not Internal")
	}
}
