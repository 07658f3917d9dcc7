package docpage

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
)

// Keys describes every key of a configuration file: a table for each struct of
// the Go file source, in its order. The struct Config is the whole file; each
// other one is named ...Config and is a field, or a map's value, of one before
// it. The keys are the yaml tags, and their meanings the fields' comments; a
// field without one is meant by the comment above it, which has to name it. The
// headings begin with heading, such as "##". What stands in them for the names
// in a map is NAME, or what placeholders has for the map's key.
func Keys(source, heading string, placeholders map[string]string) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
	if err != nil {
		return "", err
	}
	tables := keyTables{placeholders: placeholders, paths: map[string]string{"Config": ""}}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		spec := gen.Specs[0].(*ast.TypeSpec)
		prefix, known := tables.paths[spec.Name.Name]
		if !known {
			return "", fmt.Errorf("%s: %s is not reached from Config before its declaration", source, spec.Name.Name)
		}
		title := "the file"
		if prefix != "" {
			title = "`" + strings.TrimSuffix(prefix, ".") + "`"
		}
		fmt.Fprintf(&tables.text, "\n%s %s\n\n| key | type | meaning |\n|---|---|---|\n", heading, title)
		if err := tables.add(prefix, spec.Type.(*ast.StructType)); err != nil {
			return "", fmt.Errorf("%s: %s: %w", source, spec.Name.Name, err)
		}
	}
	return tables.text.String(), nil
}

// keyTables are the tables as far as they are made.
type keyTables struct {
	text         strings.Builder
	placeholders map[string]string
	// paths are where in the file the structs stand that fields have led to.
	paths map[string]string
}

// add makes the rows of a struct, whose keys stand below prefix.
func (k *keyTables) add(prefix string, s *ast.StructType) error {
	doc := ""
	for _, field := range s.Fields.List {
		tag, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			return err
		}
		key, name := reflect.StructTag(tag).Get("yaml"), field.Names[0].Name
		switch {
		case key == "-":
			continue
		case field.Doc != nil:
			doc = strings.Join(strings.Fields(field.Doc.Text()), " ")
		case !strings.Contains(doc, name):
			return fmt.Errorf("%s has no comment", name)
		}
		kind, section := describe(field.Type)
		if section != "" {
			k.paths[section] = prefix + key + "."
			if strings.HasPrefix(kind, "map") {
				k.paths[section] += k.placeholder(key) + "."
			}
		}
		fmt.Fprintf(&k.text, "| `%s` | %s | %s |\n", key, kind, doc)
	}
	return nil
}

func (k *keyTables) placeholder(key string) string {
	if p, ok := k.placeholders[key]; ok {
		return p
	}
	return "NAME"
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
		case e.Name == "float64" || e.Name == "int":
			return "number", ""
		case e.Name == "bool":
			return "true or false", ""
		}
	}
	return "text", ""
}
