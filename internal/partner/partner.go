package partner

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Missing ends the test because the partner cannot be used here: it skips it
// or, where CI is true, fails it. The hint says how to get the partner. Like
// t.Skip, it must be called from the test's own goroutine.
func Missing(t testing.TB, name, hint string) {
	t.Helper()
	if required() {
		t.Fatalf("PARTNER MISSING: %s, and CI=true requires it: %s", name, hint)
	}
	t.Skipf("PARTNER MISSING, NOT TESTED: %s: %s (CI=true makes this a failure)", name, hint)
}

// LookPath finds the named program on PATH, else in extraDirs, whose entries
// may be patterns of filepath.Glob (the last match wins, which is the newest
// of equally long versions). Where there is none it calls Missing.
func LookPath(t testing.TB, name, hint string, extraDirs ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range extraDirs {
		found, err := filepath.Glob(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("pattern %q for %s: %v", dir, name, err)
		}
		for i := len(found) - 1; i >= 0; i-- {
			// A name with a separator is not looked up on PATH: LookPath only
			// checks that it can be executed.
			if path, err := exec.LookPath(found[i]); err == nil {
				return path
			}
		}
	}
	Missing(t, name, hint)
	return ""
}

// required says whether a missing partner is a failure. A value of CI that is
// no boolean counts as true: most pipelines that set something else mean yes.
func required() bool {
	value, set := os.LookupEnv("CI")
	if !set || value == "" {
		return false
	}
	yes, err := strconv.ParseBool(value)
	return err != nil || yes
}
