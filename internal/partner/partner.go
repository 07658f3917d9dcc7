package partner

import (
	"math/rand/v2"
	"net"
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

// Ports for programs that are told theirs: below those that Linux, unless set up
// otherwise, gives to whoever names none. So no connection and no other test's
// listener takes one before the program does, or while it is restarted.
const lowestPort, highestPort = 20_000, 32_000

// FreePort gives a port of 127.0.0.1 on which nobody listens.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := lowestPort + rand.N(highestPort-lowestPort)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("of a hundred ports of 127.0.0.1 none is free")
	return 0
}

// FreeAddress is 127.0.0.1 with a FreePort.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(t)))
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
