package policy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/policy"
)

const docsFile = "../../../docs/policies.md"

// jsonBlock is a JSON block with the comments above it that say what it shows.
var (
	jsonBlock = regexp.MustCompile("((?:<!-- (?:policy|statement): [a-z]+ -->\n)+)```json\n((?s:.*?))```\n")
	shows     = regexp.MustCompile(`<!-- (policy|statement): ([a-z]+) -->`)
)

// TestDocsShowThePolicies keeps docs/policies.md true: every JSON block is what
// Build makes for the grant of the examples, and every access is there, with
// a key and without.
func TestDocsShowThePolicies(t *testing.T) {
	page := readDocs(t)
	seen := map[string]int{}
	blocks := jsonBlock.FindAllStringSubmatch(page, -1)
	if fences := strings.Count(page, "```json"); fences != len(blocks) {
		t.Errorf("the page has %d JSON blocks, %d of them say what they show", fences, len(blocks))
	}
	for _, block := range blocks {
		var shown bytes.Buffer
		if err := json.Compact(&shown, []byte(block[2])); err != nil {
			t.Fatalf("%v in\n%s", err, block[2])
		}
		for _, mark := range shows.FindAllStringSubmatch(block[1], -1) {
			seen[mark[1]+" "+mark[2]]++
			access := policy.Access(mark[2])
			want := build(t, scope(access, "")).String()
			if mark[1] == "statement" {
				// The last statement of the policy with a key.
				open := strings.TrimSuffix(want, "]}") + ","
				keyed := build(t, scope(access, testKey)).String()
				rest, found := strings.CutPrefix(keyed, open)
				if !found {
					t.Fatalf("the key changes more than the last statement of %s:\n%s", access, keyed)
				}
				want = strings.TrimSuffix(rest, "]}")
			}
			if diff := cmp.Diff(want, shown.String()); diff != "" {
				t.Errorf("%s %s on the page differs from Build's (-want +got):\n%s", mark[1], access, diff)
			}
		}
	}
	for _, access := range accesses {
		for _, kind := range []string{"policy ", "statement "} {
			if n := seen[kind+string(access)]; n != 1 {
				t.Errorf("the page shows the %s of %s %d times", kind, access, n)
			}
		}
	}
}

// TestDocsListTheActions: the table of actions is the whole catalog.
func TestDocsListTheActions(t *testing.T) {
	_, after, found := strings.Cut(readDocs(t), "<!-- actions -->\n")
	if !found {
		t.Fatal("the page has no table of actions")
	}
	table, _, _ := strings.Cut(after, "\n\n")
	var listed []string
	for _, name := range regexp.MustCompile("`(s3:[A-Z][A-Za-z]+)`").FindAllStringSubmatch(table, -1) {
		listed = append(listed, name[1])
	}
	if diff := cmp.Diff(policy.Actions(), listed); diff != "" {
		t.Errorf("the table differs from Actions() (-want +got):\n%s", diff)
	}
}

// TestDocsPrefixRules: each character that the page calls refused is refused.
func TestDocsPrefixRules(t *testing.T) {
	_, after, found := strings.Cut(readDocs(t), "## Prefixes")
	if !found {
		t.Fatal("the page has no section on prefixes")
	}
	var characters []string
	for _, row := range regexp.MustCompile("(?m)^\\| no (`.`(?:, `.`)*) \\|").FindAllStringSubmatch(after, -1) {
		for _, c := range regexp.MustCompile("`(.)`").FindAllStringSubmatch(row[1], -1) {
			characters = append(characters, c[1])
		}
	}
	slices.Sort(characters)
	if diff := cmp.Diff([]string{"$", "*", "?", "[", `\`, "]", "{", "}"}, characters); diff != "" {
		t.Errorf("characters on the page (-want +got):\n%s", diff)
	}
	for _, c := range characters {
		wantRefusal(t, policy.ValidatePrefix("a"+c+"b/"), "prefix", "choose a prefix without it")
	}
	if !strings.Contains(after, "at most 200 bytes") || policy.MaxPrefixLength != 200 {
		t.Error("the page gives another length than MaxPrefixLength")
	}
}

func readDocs(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(page), "\r\n", "\n")
}
