package client_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// apiPackages are those that other modules import.
var apiPackages = []string{"client", "client/clienttest", "client/delivery"}

// apiFile lists what they export.
const apiFile = "../api/client.txt"

// TestAPI compares what the packages export with the committed list, so that no
// change of the API goes unseen: a line that comes is an addition, a line that
// goes is a break. With STOKER_UPDATE_DOCS set it writes the list anew.
func TestAPI(t *testing.T) {
	var lines []string
	for _, name := range apiPackages {
		files, err := parsePackage(filepath.Join("..", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, exported(name, files)...)
	}
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("STOKER_UPDATE_DOCS") != "" {
		if err := os.WriteFile(apiFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(apiFile)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Split(strings.TrimSpace(string(want)), "\n")
	var changes []string
	for _, line := range old {
		if !slices.Contains(lines, line) {
			changes = append(changes, "broken: "+line)
		}
	}
	for _, line := range lines {
		if !slices.Contains(old, line) {
			changes = append(changes, "added:  "+line)
		}
	}
	if len(changes) > 0 || string(want) != got {
		t.Errorf("the API is not as api/client.txt says. If that is meant: STOKER_UPDATE_DOCS=1 go test -run TestAPI ./client\n%s", strings.Join(changes, "\n"))
	}
}

// parsePackage reads a package as Linux compiles it, without tests.
func parsePackage(dir string) ([]*ast.File, error) {
	context := build.Default
	context.GOOS, context.GOARCH = "linux", "amd64"
	found, err := context.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range found.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// exported gives a sorted line for each thing that a package exports. Names of
// parameters and comments are no part of an API, and are left out.
func exported(name string, files []*ast.File) (lines []string) {
	add := func(format string, args ...any) {
		lines = append(lines, "pkg "+name+", "+fmt.Sprintf(format, args...))
	}
	for _, file := range files {
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if receiver := receiverOf(d); d.Name.IsExported() && (receiver == "" || ast.IsExported(strings.TrimPrefix(receiver, "*"))) {
					if receiver != "" {
						receiver = "(" + receiver + ") "
					}
					add("func %s%s%s", receiver, d.Name, signature(d.Type))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.ValueSpec:
						addValues(add, d.Tok, s)
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							addType(add, s)
						}
					}
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func receiverOf(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	return source(d.Recv.List[0].Type)
}

// addValues lists constants and variables, a constant with its value.
func addValues(add func(string, ...any), kind token.Token, s *ast.ValueSpec) {
	for i, name := range s.Names {
		if !name.IsExported() {
			continue
		}
		line := kind.String() + " " + name.Name
		if s.Type != nil {
			line += " " + source(s.Type)
		}
		if kind == token.CONST && i < len(s.Values) {
			line += " = " + source(s.Values[i])
		}
		add("%s", line)
	}
}

// addType lists a type, and each exported field or method of it apart.
func addType(add func(string, ...any), s *ast.TypeSpec) {
	equals := ""
	if s.Assign.IsValid() {
		equals = "= "
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		add("type %s %sstruct", s.Name, equals)
		for _, field := range t.Fields.List {
			if len(field.Names) == 0 {
				add("type %s struct, embedded %s", s.Name, source(field.Type))
			}
			for _, name := range field.Names {
				if name.IsExported() {
					add("type %s struct, %s %s", s.Name, name, source(field.Type))
				}
			}
		}
	case *ast.InterfaceType:
		// A method more breaks whoever implements it, and it is a line of its own:
		// the whole set is in the first line, which changes too.
		var methods []string
		for _, method := range t.Methods.List {
			if f, isMethod := method.Type.(*ast.FuncType); isMethod {
				methods = append(methods, method.Names[0].Name+signature(f))
			} else {
				methods = append(methods, source(method.Type))
			}
		}
		add("type %s %sinterface { %s }", s.Name, equals, strings.Join(methods, "; "))
	case *ast.FuncType:
		add("type %s %sfunc%s", s.Name, equals, signature(t))
	default:
		add("type %s %s%s", s.Name, equals, source(t))
	}
}

// signature gives the types of parameters and results.
func signature(f *ast.FuncType) string {
	results := types(f.Results)
	switch len(results) {
	case 0:
		return "(" + strings.Join(types(f.Params), ", ") + ")"
	case 1:
		return "(" + strings.Join(types(f.Params), ", ") + ") " + results[0]
	default:
		return "(" + strings.Join(types(f.Params), ", ") + ") (" + strings.Join(results, ", ") + ")"
	}
}

func types(fields *ast.FieldList) (all []string) {
	if fields == nil {
		return nil
	}
	for _, field := range fields.List {
		for range max(1, len(field.Names)) {
			all = append(all, source(field.Type))
		}
	}
	return all
}

// source prints a node on one line.
func source(node ast.Node) string {
	if f, isFunc := node.(*ast.FuncType); isFunc {
		return "func" + signature(f)
	}
	var text bytes.Buffer
	if err := printer.Fprint(&text, token.NewFileSet(), node); err != nil {
		panic(err) // it was parsed
	}
	return strings.Join(strings.Fields(text.String()), " ")
}

// TestAPIBreaks: each kind of break takes a line away, and what is no part of an
// API none.
func TestAPIBreaks(t *testing.T) {
	const before = `package p
import "context"
const Limit = 3
var ErrGone error
type Config struct { Name string; hidden int; Wait func(ctx context.Context) error }
type Source struct{}
func New(ctx context.Context, c Config) (*Source, error) { return nil, nil }
func (s *Source) Close() error { return nil }
func (s *Source) close() {}
type Supply interface { Get(name string) (string, error) }
type Reason string
`
	list := func(text string) []string {
		t.Helper()
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		return exported("p", []*ast.File{f})
	}
	old := list(before)
	lost := func(text string) (lost []string) {
		now := list(text)
		for _, line := range old {
			if !slices.Contains(now, line) {
				lost = append(lost, line)
			}
		}
		return lost
	}
	for name, c := range map[string]struct {
		from, to string
		breaks   bool
	}{
		"a function goes":           {"func New(ctx context.Context, c Config) (*Source, error) { return nil, nil }", "", true},
		"a parameter more":          {"c Config)", "c Config, more int)", true},
		"another result":            {"Close() error { return nil }", "Close() {}", true},
		"a pointer less":            {"(s *Source) Close", "(s Source) Close", true},
		"a field goes":              {"Name string; ", "", true},
		"a field's type":            {"Name string", "Name []string", true},
		"a function's type":         {"Wait func(ctx context.Context) error", "Wait func() error", true},
		"an interface grows":        {"(string, error) }", "(string, error); More() }", true},
		"a type's kind":             {"type Reason string", "type Reason int", true},
		"a constant's value":        {"Limit = 3", "Limit = 4", true},
		"a variable goes":           {"var ErrGone error", "", true},
		"an unexported field goes":  {"hidden int; ", "", false},
		"an unexported method goes": {"func (s *Source) close() {}", "", false},
		"a parameter's name":        {"c Config)", "config Config)", false},
		"a comment":                 {"type Reason string", "// Reason is why.\ntype Reason string", false},
		"an addition":               {"type Reason string", "type Reason string\nfunc More() {}", false},
	} {
		changed := strings.Replace(before, c.from, c.to, 1)
		if changed == before {
			t.Fatalf("%s: nothing changes", name)
		}
		if got := lost(changed); (len(got) > 0) != c.breaks {
			t.Errorf("%s: lost %v", name, got)
		}
	}
}
