package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stokerd/stoker/server/admintest"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stokerctl": main})
}

// Each script has a broker of its own, and speaks to it as its administrator.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			b := admintest.Start(t, admintest.Options{Streams: true})
			testscript.Run(t, testscript.Params{
				Files: []string{file}, UpdateScripts: *update, RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error { return setup(t, b, env) },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"fails": fails, "mode": mode,
					"issued": func(_ *testscript.TestScript, _ bool, args []string) { b.Issued(t, args[0], args[1], args[2]) },
				},
			})
		})
	}
}

func setup(t *testing.T, b *admintest.Broker, env *testscript.Env) error {
	ca, cert, key := b.Files(t, admintest.Admin)
	env.Setenv("STOKER_BROKER", b.Address)
	env.Setenv("STOKER_CA", ca)
	env.Setenv("STOKER_CERT", cert)
	env.Setenv("STOKER_KEY", key)
	env.Setenv("TZ", "UTC")
	// Under the race detector each process would sleep a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	for name, operator := range map[string]string{"OPERATOR": admintest.Operator, "VIEWER": admintest.Viewer, "STRANGER": admintest.Stranger} {
		_, cert, key := b.Files(t, operator)
		env.Setenv(name+"_CERT", cert)
		env.Setenv(name+"_KEY", key)
	}
	foreign := admintest.Start(t, admintest.Options{})
	foreignCA, _, _ := foreign.Files(t, admintest.Admin)
	env.Setenv("FOREIGN_CA", foreignCA)
	return nil
}

// fails runs a command that has to end with an exit code.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// mode checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// command runs a script.
func command(shell, script string) (output []byte, err error) {
	return exec.Command(shell, "-c", script).CombinedOutput()
}
