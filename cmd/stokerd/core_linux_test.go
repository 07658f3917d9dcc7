package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test's executable run as stokerd.
const asProgram = "STOKERD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a stokerd that serves.
type process struct {
	*exec.Cmd
	t      *testing.T
	config string // the file's path
	lines  chan string
}

const configuration = `
trust_domain: test.example
listen: 127.0.0.1:0
names: [localhost]
operations: "off"
storage: {sqlite: %s}
encryption_key_file: %s
accounts: {main: {method: federation_token, region: us-east-1, endpoint: "http://127.0.0.1:1"}}
operators: {alice: admin}
log: {format: text}
`

// serve starts one, and waits until it serves.
func serve(t *testing.T) *process {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("encryption.key", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	config := write("stoker.yaml", fmt.Sprintf(configuration, filepath.Join(dir, "stoker.db"), key))
	p := &process{exec.CommandContext(t.Context(), os.Args[0], "serve", "--config", config), t, config, make(chan string, 1000)}
	p.Env = append(os.Environ(), asProgram+"=1", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "AWS_EC2_METADATA_DISABLED=true")
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(t.Output(), lines.Text())
			p.lines <- lines.Text()
		}
	}()
	p.says("msg=serving")
	return p
}

// says waits until the broker logs a line with the text.
func (p *process) says(text string) {
	p.t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatal("the broker ended")
			}
			if strings.Contains(line, text) {
				return
			}
		case <-deadline:
			p.t.Fatalf("the broker does not say %q", text)
		}
	}
}

// end stops it.
func (p *process) end() {
	p.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	for range p.lines { // the rest of its log, before Wait closes the pipe
	}
	if err := p.Wait(); err != nil {
		p.t.Errorf("the broker ended with %v", err)
	}
}

// A broker that serves leaves no image of its memory behind.
func TestServeForbidsCoreDumps(t *testing.T) {
	p := serve(t)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if f := strings.Fields(rest); f[0] != "0" || f[1] != "0" {
				t.Errorf("core dumps may have %s", rest)
			}
		}
	}
	if !strings.Contains(string(limits), "Max core file size") {
		t.Errorf("no limit of core dumps in\n%s", limits)
	}
	p.end()
}

// SIGHUP has the broker take over operators and services, name what it cannot
// take over, and go on with what it has where the file is wrong.
func TestServeReadsItsRulesAgain(t *testing.T) {
	p := serve(t)
	change := func(old, with string) {
		t.Helper()
		text, err := os.ReadFile(p.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.config, []byte(strings.Replace(string(text), old, with, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	change("operators: {alice: admin}", "operators: {alice: viewer, bob: admin}")
	p.says("operators and services were read again")
	change("bob: admin", "bob: king")
	p.says("the broker goes on with what it has")
	change("bob: king", "bob: admin")
	p.says("operators and services were read again")
	change("names: [localhost]", "names: [elsewhere]")
	p.says("settings=[names]")
	p.end()
}
