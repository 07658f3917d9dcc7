package strictyaml_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/internal/strictyaml"
)

type account struct {
	Region string  `yaml:"region"`
	Rate   float64 `yaml:"rate"`
}

type config struct {
	Listen   string             `yaml:"listen"`
	Drain    time.Duration      `yaml:"drain"`
	Count    int                `yaml:"count"`
	Quiet    bool               `yaml:"quiet"`
	Accounts map[string]account `yaml:"accounts"`
	Names    []string           `yaml:"names"`
	Extra    *account           `yaml:"extra"`
	Rows     []account          `yaml:"rows"`
}

func TestDecode(t *testing.T) {
	var got config
	doc := strictyaml.Decode("f.yaml", []byte(`
listen: 127.0.0.1:8443   # where
drain: 1m30s
count: 3
quiet: true
accounts:
  main: {region: eu-central-1, rate: 2.5}
  2024:
    region: |-
      us-east-1
names: [a, "b", 7]
extra:
  region: x
rows:
  - region: one
  - region: two
    rate: 1
`), &got)
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	want := config{
		Listen: "127.0.0.1:8443", Drain: 90 * time.Second, Count: 3, Quiet: true,
		Accounts: map[string]account{"main": {"eu-central-1", 2.5}, "2024": {"us-east-1", 0}},
		Names:    []string{"a", "b", "7"},
		Extra:    &account{Region: "x"},
		Rows:     []account{{"one", 0}, {"two", 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !doc.Has("accounts.main.region") || doc.Has("accounts.main.port") {
		t.Error("Has is wrong")
	}
}

func TestAllProblemsAtOnceWithTheirPlaces(t *testing.T) {
	var got config
	doc := strictyaml.Decode("f.yaml", []byte(`listen: [a]
drain: 30
count: many
quiet: perhaps
acounts: {}
accounts:
  main:
    regoin: eu
    rate: fast
names: one
rows: {}
extra:
listen: again
`), &got)
	doc.Add("accounts.main.region", "is missing")
	doc.Add("storage", "is missing")
	want := []string{
		`f.yaml: storage: is missing`,
		`f.yaml:1:9: listen: want a text here, not a list`,
		`f.yaml:2:8: drain: want a duration with its unit, such as 90s, 15m or 1h, not 30`,
		`f.yaml:3:8: count: want a whole number here, not many`,
		`f.yaml:4:8: quiet: want true or false here, not perhaps`,
		`f.yaml:5:1: acounts: unknown key; known here: listen, drain, count, quiet, accounts, names, extra, rows`,
		`f.yaml:7:3: accounts.main.region: is missing`,
		`f.yaml:8:5: accounts.main.regoin: unknown key; known here: region, rate`,
		`f.yaml:9:11: accounts.main.rate: want a number here, not fast`,
		`f.yaml:10:8: names: want a list here, not a single value`,
		`f.yaml:11:7: rows: want a list here, not keys with values`,
		`f.yaml:12:7: extra: has no value; give one or remove the key`,
		`f.yaml:13:1: listen: stands twice; the first is in line 1`,
	}
	text := doc.Err().Error()
	for _, w := range want {
		if !strings.Contains(text, w+"\n") && !strings.HasSuffix(text, w) {
			t.Errorf("missing: %s", w)
		}
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "the file is empty"},
		"comment only":    {"# nothing\n", "the file is empty"},
		"not a mapping":   {"- a\n", "want keys with values here"},
		"syntax":          {"listen: [a\n", "f.yaml:1:"},
		"tab":             {"accounts:\n\tmain: 1\n", "f.yaml:"},
		"alias":           {"listen: &x a\nnames: [*x]\n", "anchors, aliases, tags and merges"},
		"tag":             {"listen: !!binary aGk=\n", "anchors, aliases, tags and merges"},
		"second document": {"listen: a\n---\nlisten: b\n", "a second document"},
		"twice":           {"listen: a\nlisten: b\n", "listen"},
		"null":            {"listen: ~\n", "has no value"},
		"huge":            {"listen: " + strings.Repeat("a", 5<<20), "at most 4194304"},
		"negative unit":   {"drain: 5 minutes\n", "want a duration such as"},
	} {
		t.Run(name, func(t *testing.T) {
			var got config
			err := strictyaml.Decode("f.yaml", []byte(c.text), &got).Err()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("listen: a\naccounts: {main: {region: x}}\n")
	f.Add("a: &x [*x]\n? b\n: c\n")
	f.Add("<<: {listen: a}\nrows: [[[]]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		var got config
		doc := strictyaml.Decode("f.yaml", []byte(text), &got)
		if err := doc.Err(); err != nil && err.Error() == "" {
			t.Error("a problem without a text")
		}
	})
}
