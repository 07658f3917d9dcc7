//go:build unix

package delivery

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runExec is the process between a test and its command: it execs this binary
// again, in the given mode.
func runExec(mode string) int {
	self, err := os.Executable()
	if err != nil {
		return 99
	}
	args := []string{self}
	if path, found := strings.CutPrefix(mode, "path="); found {
		args = []string{path}
	}
	code, err := Exec(context.Background(), args, Environment(os.Environ(), childMode+"="+mode))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// runner prepares a process that runs Exec on the mode.
func runner(t *testing.T, mode string, environment ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self)
	command.Env = append(os.Environ(), append(environment, "GORACE=atexit_sleep_ms=0", childMode+"=run:"+mode)...)
	return command
}

func TestExecExitCode(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(notExecutable, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]int{
		"exit:0": 0, "exit:7": 7, "exit:255": 255,
		"die":                                 128 + int(syscall.SIGTERM),
		"path=/nonexistent/x":                 ExitNotFound,
		"path=stoker-no-such-command":         ExitNotFound,
		"path=" + notExecutable:               ExitNotExecutable,
		"path=" + filepath.Dir(notExecutable): ExitNotExecutable,
	} {
		command := runner(t, mode)
		err := command.Run()
		if got := command.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit code %d (%v), want %d", mode, got, err, want)
		}
	}
	if code, err := Exec(t.Context(), nil, nil); code != ExitFailed || err == nil {
		t.Errorf("no command: %d, %v", code, err)
	}
}

func TestExecForwardsSignals(t *testing.T) {
	// Under nohup, or as a shell's background job, a test's children would ignore
	// hangups or interrupts, as it does itself.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGHUP, syscall.SIGINT)
	defer signal.Stop(ignored)
	command := runner(t, "count")
	// A session of its own: no terminal, so that an interrupt is not one of its
	// keys.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	lines := start(t, command)
	wantLine(t, lines, "ready")
	for _, c := range []struct {
		send syscall.Signal
		want string
	}{{syscall.SIGINT, "got interrupt"}, {syscall.SIGHUP, "got hangup"}, {syscall.SIGUSR1, "got user defined signal 1"}, {syscall.SIGTERM, "got terminated"}} {
		if err := command.Process.Signal(c.send); err != nil {
			t.Fatal(err)
		}
		wantLine(t, lines, c.want)
	}
	if _, more := <-lines; more {
		t.Error("it says more")
	}
	_ = command.Wait()
	if got := command.ProcessState.ExitCode(); got != 42 {
		t.Errorf("exit code %d", got)
	}
}

// TestExecContext: the command is asked to end, and its answer counts.
func TestExecContext(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, err := Exec(ctx, []string{self}, append(os.Environ(), childMode+"=die"))
	if err != nil || code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func TestExecEnvironment(t *testing.T) {
	command := runner(t, "env",
		"STOKER_PASSWORD=CANARY", "STOKER_LOGIN=nightly@acme", "AWS_PROFILE=own", "AWS_ACCESS_KEY_ID=own",
		"AWS_SHARED_CREDENTIALS_FILE=own", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=own", "RESTIC_REPOSITORY=s3:x", "AWS_ENDPOINT_URL=http://minio",
	)
	var out bytes.Buffer
	command.Stdout = &out
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, gone := range []string{"CANARY", "STOKER_", "=own"} {
		if strings.Contains(text, gone) {
			t.Errorf("the child has %q in its environment", gone)
		}
	}
	for _, kept := range []string{"RESTIC_REPOSITORY=s3:x\n", "AWS_ENDPOINT_URL=http://minio\n", "AWS_SHARED_CREDENTIALS_FILE=/dev/null\n"} {
		if !strings.Contains(text, kept) {
			t.Errorf("the child lacks %q", kept)
		}
	}
}

func TestVariables(t *testing.T) {
	c := credentialOf("photos")
	e := listen(t, newShelf(c))
	got := Environment([]string{"AWS_REGION=elsewhere", "HOME=/h"}, append(e.Variables("photos", "T"), RegionVariables(c)...)...)
	want := []string{
		"HOME=/h", "AWS_CONTAINER_CREDENTIALS_FULL_URI=" + e.URL("photos"), "AWS_CONTAINER_AUTHORIZATION_TOKEN=T",
		"AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	static := StaticVariables(c)
	if len(static) != 4 || static[1] != "AWS_SECRET_ACCESS_KEY=secret-of-photos" {
		t.Errorf("static %v", static)
	}
	c.Target.Region = ""
	if got := RegionVariables(c); got != nil {
		t.Errorf("no region: %v", got)
	}
}

func TestShadowingConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                                                    "",
		"[default]\nregion = x\n":                             "",
		"[profile other]\nrole_arn = x\n":                     "",
		"[default]\nregion = x\n role_arn = x\n":              "role_arn",
		"[default]\ncredential_process=y\n":                   "credential_process",
		"[profile default]\nAWS_ACCESS_KEY_ID=A\n":            "AWS_ACCESS_KEY_ID",
		"[default]\n# role_arn = x\n[other]\nsso_session=x\n": "",
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, got := ShadowingConfig([]string{"AWS_CONFIG_FILE=/nowhere", "AWS_CONFIG_FILE=" + file})
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if file, _ := ShadowingConfig([]string{"AWS_CONFIG_FILE=/nonexistent"}); file != "" {
		t.Errorf("no such file: %q", file)
	}
}

// start starts a command and gives the lines that it prints.
func start(t *testing.T, command *exec.Cmd) <-chan string {
	t.Helper()
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- strings.TrimSpace(scanner.Text())
		}
	}()
	return lines
}

func wantLine(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got := <-lines:
		if got != want {
			t.Fatalf("it says %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not say %q", want)
	}
}
