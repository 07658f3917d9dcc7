package docpage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/internal/docpage"
)

// written puts a text into a file of the test.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const page = "before\n<!-- part -->\nold\n<!-- /part -->\nafter\n"

func TestKeep(t *testing.T) {
	for name, test := range map[string]struct {
		part, want, update string
		refused            string
		becomes            string
	}{
		"as it should be":       {part: "part", want: "old\n", becomes: page},
		"stale":                 {part: "part", want: "new\n", refused: "is stale", becomes: page},
		"written anew":          {part: "part", want: "new\n", update: "1", becomes: strings.Replace(page, "old", "new", 1)},
		"no such part":          {part: "other", want: "old\n", refused: `no place for its part "other"`, becomes: page},
		"no such part to write": {part: "other", want: "old\n", update: "1", refused: `no place for its part "other"`, becomes: page},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("STOKER_UPDATE_DOCS", test.update)
			path := written(t, "page.md", page)
			err := docpage.Keep(path, test.part, test.want)
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
				t.Errorf("got %v, want %q", err, test.refused)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.becomes {
				t.Errorf("the page is\n%s", got)
			}
		})
	}
	if err := docpage.Keep(filepath.Join(t.TempDir(), "none.md"), "part", ""); err == nil {
		t.Error("a page that there is not was kept")
	}
}

// testdata/keys.md is what testdata/config.go says.
func TestKeys(t *testing.T) {
	got, err := docpage.Keys("testdata/config.go", "##", map[string]string{"users": "LOGIN"})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestKeysThatCannotBeDescribed(t *testing.T) {
	for want, text := range map[string]string{
		"LogConfig is not reached": "package config\ntype LogConfig struct{}\n",
		"Config: B has no comment": "package config\ntype Config struct {\n\t// A is one.\n\tA string `yaml:\"a\"`\n\tB string `yaml:\"b\"`\n}\n",
		"expected 'package'":       "no Go\n",
	} {
		if _, err := docpage.Keys(written(t, "config.go", text), "##", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
