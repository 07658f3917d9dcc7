package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named is a test as docs/security.md names it: directory and function.
var named = regexp.MustCompile("`([a-z0-9/-]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// exists says whether the directory has the test function.
func exists(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	wantOK(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		wantOK(t, err)
		if strings.Contains("\n"+string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// Every promise of docs/security.md names a test, and every test it names is
// there. The nine things that must always hold are all among the promises.
func TestPromisesAreShown(t *testing.T) {
	text, err := os.ReadFile("../docs/security.md")
	wantOK(t, err)
	for _, m := range named.FindAllStringSubmatch(string(text), -1) {
		if !exists(t, m[1], m[2]) {
			t.Errorf("docs/security.md names %s: %s, which does not exist", m[1], m[2])
		}
	}
	promises, inTable := 0, false
	invariants := map[string]bool{}
	for n, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case strings.HasSuffix(line, "| shown by |"):
			inTable = true
		case inTable && !strings.HasPrefix(line, "|---"):
			promises++
			if !named.MatchString(cells[len(cells)-1]) {
				t.Errorf("line %d: a promise without a test: %s", n+1, line)
			}
			if len(cells) == 3 {
				invariants[cells[0]] = true
			}
		}
	}
	for i := range 9 {
		if !invariants[fmt.Sprint(i+1)] {
			t.Errorf("what always holds: %d is missing", i+1)
		}
	}
	if promises < 40 {
		t.Errorf("only %d promises were read", promises)
	}
}

// What parses what others send has a fuzz target.
func TestWhatParsesIsFuzzed(t *testing.T) {
	for what, target := range map[string][2]string{
		"policies": {"server/internal/policy", "FuzzBuild"}, "certificate identities": {"server/internal/pki", "FuzzIdentify"},
		"revocation lists": {"server/internal/pki", "FuzzRevocationList"}, "certificate requests": {"server/internal/pki", "FuzzParseRequest"},
		"logins": {"server/internal/authn", "FuzzCanonicalLogin"}, "authorization metadata": {"server/internal/authn", "FuzzAuthorization"},
		"stored hashes": {"server/internal/authn", "FuzzStoredHash"}, "access tokens": {"server/internal/authn", "FuzzAccessToken"},
		"join tokens": {"internal/jointoken", "FuzzParse"}, "configurations": {"server", "FuzzParse"},
	} {
		if !exists(t, target[0], target[1]) {
			t.Errorf("%s are not fuzzed: %s has no %s", what, target[0], target[1])
		}
	}
}
