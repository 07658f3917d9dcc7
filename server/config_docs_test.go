package server_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server"
)

// configTables describes every key by the comments in config.go: a table for
// each struct, in the order of the source.
func configTables(t *testing.T) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"Config": ""}
	var out strings.Builder
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		spec := gen.Specs[0].(*ast.TypeSpec)
		prefix, known := paths[spec.Name.Name]
		if !known {
			t.Fatalf("%s is not reached from Config before its declaration", spec.Name.Name)
		}
		title := strings.TrimSuffix(prefix, ".")
		if title == "" {
			title = "the file"
		} else {
			title = "`" + title + "`"
		}
		fmt.Fprintf(&out, "\n## %s\n\n| key | type | meaning |\n|---|---|---|\n", title)
		doc := ""
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			key := reflect.StructTag(tag).Get("yaml")
			if key == "-" {
				continue
			}
			if field.Doc != nil {
				doc = strings.Join(strings.Fields(field.Doc.Text()), " ")
			}
			kind := describe(field.Type)
			if name, nested := nestedType(field.Type); nested {
				at := prefix + key + "."
				if strings.HasPrefix(kind, "map") {
					at += "NAME."
				}
				paths[name] = at
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", key, kind, doc)
		}
	}
	return out.String()
}

func nestedType(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return nestedType(e.X)
	case *ast.MapType:
		return nestedType(e.Value)
	case *ast.Ident:
		return e.Name, strings.HasSuffix(e.Name, "Config")
	}
	return "", false
}

func describe(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return describe(e.X)
	case *ast.SelectorExpr:
		return "duration"
	case *ast.ArrayType:
		return "list of texts"
	case *ast.MapType:
		return "map of names to " + describe(e.Value)
	case *ast.Ident:
		switch {
		case strings.HasSuffix(e.Name, "Config"):
			return "section"
		case e.Name == "float64":
			return "number"
		case e.Name == "bool":
			return "true or false"
		}
	}
	return "text"
}

// docs/configuration.md lists every key. With STOKER_UPDATE_DOCS set, the test
// writes the tables anew instead.
func TestConfigurationIsDocumented(t *testing.T) {
	const path = "../docs/configuration.md"
	want := configTables(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const start, end = "<!-- keys -->\n", "<!-- /keys -->\n"
	before, rest, ok := strings.Cut(string(text), start)
	documented, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the tables", path)
	}
	_, example, _ := strings.Cut(before, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	example = strings.ReplaceAll(example, "/etc/stoker/encryption.key", "config.go")
	if _, err := server.Parse("example", []byte(example)); err != nil {
		t.Errorf("the example does not work: %v", err)
	}
	if documented == want {
		return
	}
	if os.Getenv("STOKER_UPDATE_DOCS") == "" {
		t.Fatalf("%s is stale; run the test with STOKER_UPDATE_DOCS=1 and commit", path)
	}
	if err := os.WriteFile(path, []byte(before+start+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
