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

// A broker that serves leaves no image of its memory behind.
func TestServeForbidsCoreDumps(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("encryption.key", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	config := write("stoker.yaml", fmt.Sprintf(`
trust_domain: test.example
listen: 127.0.0.1:0
names: [localhost]
operations: "off"
storage: {sqlite: %s}
encryption_key_file: %s
accounts: {main: {method: federation_token, region: us-east-1, endpoint: "http://127.0.0.1:1"}}
operators: {alice: admin}
log: {format: text}
`, filepath.Join(dir, "stoker.db"), key))
	broker := exec.CommandContext(t.Context(), os.Args[0], "serve", "--config", config)
	broker.Env = append(os.Environ(), asProgram+"=1", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "AWS_EC2_METADATA_DISABLED=true")
	stderr, err := broker.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan bool, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(t.Output(), lines.Text())
			if strings.Contains(lines.Text(), "msg=serving") {
				serving <- true
			}
		}
		close(serving)
	}()
	select {
	case ok := <-serving:
		if !ok {
			t.Fatal("the broker ended")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the broker does not serve")
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", broker.Process.Pid))
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
	if err := broker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range serving { // the rest of its log, before Wait closes the pipe
	}
	if err := broker.Wait(); err != nil {
		t.Errorf("the broker ended with %v", err)
	}
}
