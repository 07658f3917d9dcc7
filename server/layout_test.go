package server_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/stokerd/stoker/"

// goFiles gives the imports of every Go file of the module that is no test, by
// the file's slash path from the root.
func goFiles(t *testing.T) map[string][]string {
	t.Helper()
	root := os.DirFS("..")
	files := map[string][]string{}
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		imports := []string{}
		for _, i := range parsed.Imports {
			text, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, text)
		}
		files[path] = imports
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("found only %d files", len(files))
	}
	return files
}

func under(path string, dirs ...string) bool {
	for _, d := range dirs {
		if path == d || strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}

// apis are the only packages below server that may know gRPC and protobuf;
// fixtures of tests may too.
var apis = []string{
	"server/internal/agentapi", "server/internal/adminapi", "server/internal/serviceapi", "server/internal/apierr",
	"server/internal/message", "server/internal/carrier", "server/internal/brokertest",
}

func TestImportsRunOneWay(t *testing.T) {
	for file, imports := range goFiles(t) {
		for _, imported := range imports {
			own, isOwn := strings.CutPrefix(imported, module)
			wrong := ""
			switch {
			case under(file, "server/internal") && !under(file, apis...) &&
				(strings.HasPrefix(imported, "google.golang.org/grpc") || strings.HasPrefix(imported, "google.golang.org/protobuf") || under(own, "proto")):
				wrong = "gRPC and protobuf stay in the API packages"
			case !isOwn:
			case under(file, "client") && !under(own, "client", "proto", "internal"):
				wrong = "client imports proto alone"
			case under(file, "proto") && !under(own, "proto"):
				wrong = "proto imports nothing of ours"
			case under(file, "server") && under(own, "client", "cmd"):
				wrong = "the broker does not import its clients"
			case under(file, "internal") && !under(own, "internal"):
				wrong = "internal imports nothing above it"
			case under(file, "server/internal/storage") && !under(own, "server/internal/storage", "internal/partner"):
				wrong = "storage imports no domain package"
			case under(file, apis[:3]...) && under(own, apis[:3]...) && filepath.Dir(file) != own && !strings.HasPrefix(filepath.Dir(file), own+"/"):
				wrong = "API packages do not import each other"
			}
			if wrong != "" {
				t.Errorf("%s imports %s: %s", file, imported, wrong)
			}
		}
	}
}

// Storage's own types lean on the standard library alone, so that a backend is
// all that a driver's module can reach.
func TestStorageContractNeedsTheStandardLibraryAlone(t *testing.T) {
	for file, imports := range goFiles(t) {
		if filepath.ToSlash(filepath.Dir(file)) != "server/internal/storage" {
			continue
		}
		for _, imported := range imports {
			if strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") {
				t.Errorf("%s imports %s", file, imported)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for file := range goFiles(t) {
		dir := filepath.Dir(file)
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		documented[dir] = documented[dir] || parsed.Doc != nil
	}
	for dir, ok := range documented {
		if !ok && !strings.HasPrefix(dir, "proto") {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
