//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/client/clienttest"
)

// childMode makes this binary stoker-agent, or a tool that stoker-agent runs.
const childMode = "AGENT_TEST_CHILD"

// childRing is the file of a stoker-agent's keyring; without it, it has none.
const childRing = "AGENT_TEST_RING"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "agent":
		// What stoker-agent starts is a tool.
		if err := os.Setenv(childMode, "tool"); err != nil {
			panic(err)
		}
		os.Exit(execute(context.Background(), os.Args[1:], &surroundings{out: os.Stdout, err: os.Stderr, keyring: ringFile(os.Getenv(childRing))}))
	case "tool":
		os.Exit(tool(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// ringFile is a keyring in a file: a line for each password.
type ringFile string

func (f ringFile) load() (ring, error) {
	passwords := ring{}
	text, err := os.ReadFile(string(f))
	for line := range strings.Lines(string(text)) {
		login, secret, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		passwords[login] = secret
	}
	return passwords, err
}

func (f ringFile) Get(login string) (string, error) {
	passwords, err := f.load()
	if err != nil {
		return "", err
	}
	return passwords.Get(login)
}

func (f ringFile) Set(login, secret string) error {
	return os.WriteFile(string(f), []byte(login+" "+secret+"\n"), 0o600)
}

func (f ringFile) Delete(login string) error {
	passwords, err := f.load()
	if err == nil {
		err = passwords.Delete(login)
	}
	if err == nil {
		err = os.WriteFile(string(f), nil, 0o600)
	}
	return err
}

// tool is a command under "stoker-agent exec".
func tool(args []string) int {
	switch args[0] {
	case "env":
		for _, entry := range os.Environ() {
			fmt.Println(entry)
		}
	case "exit":
		return 7
	case "ask": // asks the endpoint once for each line that it is sent
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			status, body, err := askEndpoint(os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI"), os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN"))
			fmt.Println(status, body, err)
		}
	}
	return 0
}

func askEndpoint(url, token string) (int, string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", token)
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(body)), err
}

// world is a broker and the files of an agent.
type world struct {
	broker *clienttest.Broker
	dir    string
	files  clienttest.Files
	env    []string
}

func newWorld(t *testing.T, options ...clienttest.Option) *world {
	t.Helper()
	dir := shortDir(t)
	broker := clienttest.New(t, options...)
	broker.SetPassword("CANARY-" + broker.Password())
	w := &world{broker: broker, dir: dir, files: broker.Files(dir)}
	w.env = []string{
		childMode + "=agent", "GORACE=atexit_sleep_ms=0", "HOME=" + dir, "PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + dir,
		"STOKER_BROKER=" + broker.Address(), "STOKER_CA=" + w.files.CA, "STOKER_CERT=" + w.files.Cert, "STOKER_KEY=" + w.files.Key,
		"STOKER_LOGIN=" + clienttest.Login, "STOKER_PASSWORD_FILE=" + w.files.Password,
		// A child of a test that measures coverage complains without it.
		"GOCOVERDIR=" + dir,
	}
	return w
}

// addSecond adds the user audit@acme, whose password is in the file "second".
func (w *world) addSecond(t *testing.T) {
	t.Helper()
	w.broker.AddUser("audit@acme", "CANARY-second")
	if err := os.WriteFile(filepath.Join(w.dir, "second"), []byte("CANARY-second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command prepares stoker-agent with these arguments; extra variables win.
func (w *world) command(t *testing.T, extra []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self, args...)
	command.Env = append(append([]string{}, w.env...), extra...)
	return command
}

// run runs stoker-agent to its end, and fails if a secret turns up.
func (w *world) run(t *testing.T, extra []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	command := w.command(t, extra, args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if command.ProcessState == nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"standard output": out.String(), "standard error": errs.String()} {
		if strings.Contains(text, "CANARY") {
			t.Errorf("the password is in its %s:\n%s", name, text)
		}
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

// running is a stoker-agent that goes on.
type running struct {
	command *exec.Cmd
	lines   chan string
	stderr  bytes.Buffer
	stdin   io.WriteCloser
}

func (w *world) start(t *testing.T, extra []string, args ...string) *running {
	t.Helper()
	return begin(t, w.command(t, extra, args...))
}

// startProgram starts another program than this one.
func (w *world) startProgram(t *testing.T, program string, extra []string, args ...string) *running {
	t.Helper()
	command := w.command(t, extra, args...)
	command.Path, command.Args[0] = program, program
	return begin(t, command)
}

func begin(t *testing.T, command *exec.Cmd) *running {
	t.Helper()
	r := &running{command: command, lines: make(chan string, 256)}
	r.command.Stderr = &r.stderr
	out, err := r.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if r.stdin, err = r.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			r.lines <- scanner.Text()
		}
	}()
	return r
}

// line gives the next line that contains the text, and drops those before it.
func (r *running) line(t *testing.T, contains string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case line, more := <-r.lines:
			if !more {
				_ = r.command.Wait()
				t.Fatalf("it ended without %q: %s", contains, r.stderr.String())
			}
			if strings.Contains(line, contains) {
				return line
			}
		case <-deadline:
			t.Fatalf("no line with %q", contains)
		}
	}
}

// stop ends it as a service manager does, and fails if it does not end well.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range r.lines { // until it has ended
	}
	if err := r.command.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, r.stderr.String())
	}
	if strings.Contains(r.stderr.String(), "CANARY") {
		t.Errorf("the password is in its log:\n%s", r.stderr.String())
	}
}

func (w *world) place(name string) string { return filepath.Join(w.dir, "stoker-agent", name) }
