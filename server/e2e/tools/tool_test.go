//go:build unix

package tools_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/partner"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	partners = "run `make partners`, and `make test`"
	mebibyte = 1 << 20
)

// tool is a program that people back up with.
type tool struct {
	slug    string
	name    string // in the page, with the version that was tested
	version string // what it must say when asked for its version
	ask     string // the question, a command line
	find    func(t testing.TB) string
	access  stokerv1.Access // unset: backup

	env    []string  // of every command
	shown  string    // the program's name, where the page shows its commands
	before []command // that prepare, such as init
	// command is one run. It reads standard input and, for each portion that it
	// is given there, makes at least one request before long.
	command command
	// uploads says that a run is one multipart upload of all of its input, to
	// "stream" under the prefix.
	uploads bool
	portion int           // bytes of noise; 0: a line with the name of an object
	pace    time.Duration // between portions while no new credential comes
	// When it asks the endpoint again: once less than window is left, or after
	// this share of the life.
	window time.Duration
	share  float64
	// special replaces what most tools need.
	special map[way]settings
	// expect has what the table says; ways that are not in it refresh.
	expect map[way]expectation
}

// command is a command line of a tool.
type command struct {
	line string
	// here are options that only tests need: S3 without TLS, and small packs.
	here string
}

// expectation is what a tool does in a way that it does not refresh from.
type expectation struct {
	outcome outcome
	why     string
}

// outcome is what came of a run.
type outcome string

const (
	// refreshes: it used several sets of keys in one run, none past its end.
	refreshes outcome = "refreshes"
	// keeps: it used the first keys alone, and failed once they were over.
	keeps outcome = "keeps the first keys"
	// persists: it used the first keys alone, and went on trying with them long
	// after they were over.
	persists outcome = "keeps the first keys, and goes on trying"
	// takesNone: it made no request with keys of ours.
	takesNone outcome = "no"
	// broken is anything else.
	broken outcome = "broken"
)

const (
	readsOnce  = "reads the file once; start it anew before the keys end"
	fixedKeys  = "has keys in its environment, which never change; the run must end before they do"
	noProcess  = "knows no `credential_process`"
	noFile     = "knows no shared-credentials file"
	noEndpoint = "knows no credentials endpoint"
	noToken    = "does not know the variable for the token's file"
)

// installed finds a program of Debian's.
func installed(path, pkg string) func(testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		if _, err := exec.LookPath(path); err != nil {
			partner.Missing(t, path, "install Debian's "+pkg)
		}
		return path
	}
}

// onPath finds a program wherever it is.
func onPath(name, hint string) func(testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		return partner.LookPath(t, name, hint)
	}
}

// built finds a program that make partners builds. One of the same name may be
// installed by Debian in another version.
func built(name string) func(testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		path, err := exec.LookPath(filepath.Join(toolsDir(t), name))
		if err != nil {
			partner.Missing(t, name, partners)
		}
		return path
	}
}

// toolsDir is where make partners installs.
func toolsDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../../../.tools")
	must(t, err)
	return dir
}

// testProgram finds this test's own program.
func testProgram(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// scripted says where a script in testdata is.
func scripted(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return path
}

// needs is the access that the tool backs up with.
func (k tool) needs() stokerv1.Access {
	if k.access == stokerv1.Access_ACCESS_UNSPECIFIED {
		return accessBackup
	}
	return k.access
}

// program finds the tool in the version that the page tells of.
func (k tool) program(t *testing.T) string {
	t.Helper()
	path := k.find(t)
	if k.ask == "" {
		return path
	}
	cmd := exec.Command("sh", "-c", fill(k.ask, map[string]string{"program": path, "tools": toolsDir(t)}))
	cmd.Env = clean(t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), k.version) {
		partner.Missing(t, k.name, strings.TrimSpace("this one says: "+string(out)))
	}
	return path
}
