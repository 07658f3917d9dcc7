package strictyaml

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxSize bounds a file: one that is larger is not a configuration.
const maxSize = 4 << 20

// Problem is one thing that is wrong.
type Problem struct {
	// File, Line and Column say where, from 1. Line 0: in the file as a whole.
	File         string
	Line, Column int
	// Path is the key's place in the document, such as accounts.main.region.
	Path string
	// Text says what is wrong and what to write instead.
	Text string
}

// String gives "file:line:column: path: text".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is an error that lists all that is wrong, in order of place.
type Problems []Problem

// Error gives one line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Document remembers where each key of a decoded file stands, and gathers what
// is wrong with it.
type Document struct {
	file     string
	places   map[string]*token.Position
	problems Problems
}

// Decode reads one YAML document into v, a pointer to a struct with yaml tags.
// What could be decoded is in v even where there are problems, so that the
// caller can check the rest and report it with Add. Err tells all.
func Decode(file string, data []byte, v any) *Document {
	d := &Document{file: file, places: map[string]*token.Position{}}
	if len(data) > maxSize {
		d.Add("", "the file has %d bytes; at most %d make a configuration", len(data), maxSize)
		return d
	}
	parsed, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return d
	}
	var body ast.Node
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			d.at(doc.Body, "", "a second document begins here; put one into a file")
			return d
		}
		body = doc.Body
	}
	if body == nil {
		d.Add("", "the file is empty")
		return d
	}
	d.decode(body, "", reflect.ValueOf(v).Elem())
	return d
}

// Add reports a problem at a path, or at its nearest ancestor that stands in
// the file.
func (d *Document) Add(path, format string, args ...any) {
	p := Problem{File: d.file, Path: path, Text: fmt.Sprintf(format, args...)}
	for at := path; ; {
		if pos := d.places[at]; pos != nil {
			p.Line, p.Column = pos.Line, pos.Column
			break
		}
		if at == "" {
			break
		}
		at = parent(at)
	}
	d.problems = append(d.problems, p)
}

// Has says whether the file sets the path.
func (d *Document) Has(path string) bool { return d.places[path] != nil }

// Err gives all problems in order of place, or nil.
func (d *Document) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	sort.SliceStable(d.problems, func(i, j int) bool {
		a, b := d.problems[i], d.problems[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return d.problems
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

// syntax reports an error of the YAML parser.
func (d *Document) syntax(err error) {
	var at yaml.Error
	if !errors.As(err, &at) {
		d.Add("", "%v", err)
		return
	}
	p := Problem{File: d.file, Text: at.GetMessage()}
	if tk := at.GetToken(); tk != nil && tk.Position != nil {
		p.Line, p.Column = tk.Position.Line, tk.Position.Column
	}
	d.problems = append(d.problems, p)
}

func (d *Document) at(n ast.Node, path, format string, args ...any) {
	p := Problem{File: d.file, Path: path, Text: fmt.Sprintf(format, args...)}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		p.Line, p.Column = tk.Position.Line, tk.Position.Column
	}
	d.problems = append(d.problems, p)
}

func (d *Document) decode(n ast.Node, path string, v reflect.Value) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.at(n, path, "anchors, aliases, tags and merges are not supported; write the value out")
		return
	case *ast.NullNode:
		d.at(n, path, "has no value; give one or remove the key")
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, path, v.Elem())
	case v.Type() == reflect.TypeFor[time.Duration]():
		d.duration(n, path, v)
	case v.Kind() == reflect.Struct:
		d.object(n, path, v)
	case v.Kind() == reflect.Map:
		d.table(n, path, v)
	case v.Kind() == reflect.Slice:
		d.list(n, path, v)
	default:
		d.scalar(n, path, v)
	}
}

// entries gives a mapping's keys and values in order; nil and a problem where n
// is none.
func (d *Document) entries(n ast.Node, path string) []*ast.MappingValueNode {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.at(n, path, "want keys with values here, not %s", kind(n))
	}
	return values
}

func (d *Document) key(e *ast.MappingValueNode, path string) (name, at string, ok bool) {
	if _, plain := e.Key.(*ast.StringNode); !plain {
		if _, number := e.Key.(*ast.IntegerNode); !number {
			d.at(e.Key, path, "want a plain text as key")
			return "", "", false
		}
	}
	name = e.Key.GetToken().Value
	at = name
	if path != "" {
		at = path + "." + name
	}
	if d.places[at] != nil {
		d.at(e.Key, at, "stands twice; the first is in line %d", d.places[at].Line)
		return "", "", false
	}
	d.places[at] = e.Key.GetToken().Position
	return name, at, true
}

func (d *Document) object(n ast.Node, path string, v reflect.Value) {
	fields := map[string]reflect.Value{}
	var known []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields[name] = v.Field(i)
		known = append(known, name)
	}
	for _, e := range d.entries(n, path) {
		name, at, ok := d.key(e, path)
		if !ok {
			continue
		}
		field, ok := fields[name]
		if !ok {
			d.at(e.Key, at, "unknown key; known here: %s", strings.Join(known, ", "))
			continue
		}
		d.decode(e.Value, at, field)
	}
}

func (d *Document) table(n ast.Node, path string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(n, path) {
		name, at, ok := d.key(e, path)
		if !ok {
			continue
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(e.Value, at, value)
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), value)
	}
}

func (d *Document) list(n ast.Node, path string, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.at(n, path, "want a list here, not %s", kind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, e := range seq.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.places[at] = e.GetToken().Position
		d.decode(e, at, v.Index(i))
	}
}

func (d *Document) duration(n ast.Node, path string, v reflect.Value) {
	text, ok := n.(*ast.StringNode)
	if !ok {
		d.at(n, path, "want a duration with its unit, such as 90s, 15m or 1h, not %s", n.GetToken().Value)
		return
	}
	value, err := time.ParseDuration(text.Value)
	if err != nil {
		d.at(n, path, "want a duration such as 90s, 15m or 1h, not %q", text.Value)
		return
	}
	v.SetInt(int64(value))
}

func (d *Document) scalar(n ast.Node, path string, v reflect.Value) {
	// A number or a truth value where a text belongs is taken as it is written:
	// a bucket may be called 2024.
	if v.Kind() == reflect.String {
		switch s := n.(type) {
		case *ast.StringNode:
			v.SetString(s.Value)
		case *ast.LiteralNode:
			v.SetString(s.Value.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			v.SetString(n.GetToken().Value)
		default:
			d.at(n, path, "want a text here, not %s", kind(n))
		}
		return
	}
	if err := yaml.NodeToValue(n, v.Addr().Interface()); err != nil {
		d.at(n, path, "want %s here, not %s", wanted(v.Kind()), n.GetToken().Value)
	}
}

func wanted(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
