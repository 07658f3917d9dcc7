package audit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
)

const page = "../../../docs/audit.md"

// table gives the rows of the page's table under a heading: the first cell
// without its backquotes, and the second.
func table(t *testing.T, heading string) (rows [][2]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		rows = append(rows, [2]string{strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2])})
	}
	return rows
}

// constants gives the values of a type's constants in a source file.
func constants(t *testing.T, file, typeName string) (values []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typeName {
			return true
		}
		switch value := spec.Values[0].(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(value.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		case *ast.SelectorExpr: // storage must know some of the names too
			named := map[string]string{
				"EventCredentialIssued": storage.EventCredentialIssued, "EventCredentialRenewed": storage.EventCredentialRenewed,
			}
			values = append(values, named[value.Sel.Name])
		}
		return true
	})
	return values
}

// The page, the tables in the code and the constants name the same events and
// faults, in the same order and words.
func TestPageNamesEventsAndFaults(t *testing.T) {
	var events, faults [][2]string
	for _, row := range Events {
		events = append(events, [2]string{string(row.Event), row.Doc})
	}
	for _, row := range Faults {
		faults = append(faults, [2]string{string(row.Fault), row.Doc})
	}
	for _, c := range []struct {
		heading, file, typeName string
		rows                    [][2]string
	}{{"Events", "event.go", "Event", events}, {"Faults", "verify.go", "FaultKind", faults}} {
		if got := table(t, c.heading); !reflect.DeepEqual(got, c.rows) {
			t.Errorf("%s: the page has %d rows\n%v\nthe code %d\n%v", c.heading, len(got), got, len(c.rows), c.rows)
		}
		var names []string
		for _, row := range c.rows {
			names = append(names, row[0])
			if !strings.HasSuffix(row[1], ".") {
				t.Errorf("%s: the sentence does not end", row[0])
			}
		}
		if declared := constants(t, c.file, c.typeName); !slices.Equal(declared, names) {
			t.Errorf("%s: constants %q, rows %q", c.heading, declared, names)
		}
	}
}

// The page names the fields of storage.AuditRecord, in the order of the hash,
// and says of which type they are.
func TestPageNamesFields(t *testing.T) {
	rows := table(t, "Fields")
	structure := reflect.TypeFor[storage.AuditRecord]()
	if len(rows) != structure.NumField() || len(rows) != len(fields) {
		t.Fatalf("the page has %d fields, the struct %d, the encoding %d", len(rows), structure.NumField(), len(fields))
	}
	for i, f := range fields {
		if rows[i][0] != f.name {
			t.Errorf("field %d is %s on the page and %s in the encoding", i, rows[i][0], f.name)
		}
		kind := map[bool]string{f.text != nil: "text", f.number != nil: "number", f.time != nil: "time", f.detail != nil: "detail"}[true]
		if rows[i][1] != kind {
			t.Errorf("%s is a %s on the page and a %s in the encoding", f.name, rows[i][1], kind)
		}
	}
}

// The page's example is a line that the code reads and writes, and its hash is
// right: whoever implements the encoding can test against it.
func TestPageExample(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```json\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the page has no example")
	}
	r, err := parseLine([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if Hash(r) != r.Hash {
		t.Errorf("the example's hash is %s", Hash(r))
	}
	if line := string(AppendLine(nil, r)); line != example {
		t.Errorf("the example is %s\nwritten %s", example, line)
	}
}
