package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stokerd/stoker/client/clienttest"
)

const page = "../../../../docs/agent.md"

// placeholders name the keys that are names in a map of sections.
var placeholders = map[string]string{"users.": "LOGIN.", "consumers.": "NAME."}

// tables describes every key by the comments in config.go: a table for each
// struct, in the order of the source.
func tables(t *testing.T) string {
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
		title := "`" + strings.TrimSuffix(prefix, ".") + "`"
		if prefix == "" {
			title = "the file"
		}
		fmt.Fprintf(&out, "\n### %s\n\n| key | type | meaning |\n|---|---|---|\n", title)
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			key := reflect.StructTag(tag).Get("yaml")
			kind, section := describe(field.Type)
			if section != "" {
				at := prefix + key + "."
				paths[section] = at
				if strings.HasPrefix(kind, "map") {
					paths[section] += placeholders[at]
				}
			}
			if field.Doc == nil {
				t.Fatalf("%s has no comment", key)
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", key, kind, strings.Join(strings.Fields(field.Doc.Text()), " "))
		}
	}
	return out.String()
}

// describe gives a type in words, and the struct that a section is.
func describe(e ast.Expr) (kind, section string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return describe(e.X)
	case *ast.SelectorExpr:
		return "duration", ""
	case *ast.ArrayType:
		return "list of texts", ""
	case *ast.MapType:
		kind, section = describe(e.Value)
		return "map of names to " + kind, section
	case *ast.Ident:
		switch {
		case strings.HasSuffix(e.Name, "Config"):
			return "section", e.Name
		case e.Name == "bool":
			return "true or false", ""
		}
	}
	return "text", ""
}

// docs/agent.md lists every key. With STOKER_UPDATE_DOCS set, the test writes the
// tables anew instead.
func TestKeysAreDocumented(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const start, end = "<!-- keys -->\n", "<!-- /keys -->\n"
	before, rest, found := strings.Cut(string(text), start)
	documented, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the tables", page)
	}
	want := tables(t)
	if documented == want {
		return
	}
	if os.Getenv("STOKER_UPDATE_DOCS") == "" {
		t.Fatalf("%s is stale; run the test with STOKER_UPDATE_DOCS=1 and commit", page)
	}
	if err := os.WriteFile(page, []byte(before+start+want+end+after), 0o644); err != nil {
		t.Fatal(err)
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
