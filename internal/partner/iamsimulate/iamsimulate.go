package iamsimulate

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stokerd/stoker/internal/partner"
)

// Verdict is what the evaluator says to a request.
type Verdict string

// The verdicts.
const (
	Allowed          Verdict = "Allowed"
	ImplicitlyDenied Verdict = "ImplicitlyDenied"
	ExplicitlyDenied Verdict = "ExplicitlyDenied"
)

// Request is one request to AWS. A "*" or "?" in Resource would be read as a
// pattern.
type Request struct {
	Action   string `json:"action"`
	Resource string `json:"resource"`
	// Context has the request's condition keys.
	Context map[string]string `json:"context,omitempty"`
	// Thorough has the evaluator check the policies, the action, the resource
	// and the condition keys as well, which takes ten times as long. What it
	// finds wrong fails the test.
	Thorough bool `json:"thorough,omitempty"`
}

// Case is the policies of one session, and requests that it makes.
type Case struct {
	// Session is the session policy. Empty: there is none.
	Session string `json:"session,omitempty"`
	// Identity are the inline policies of the user or role behind the session,
	// beside one that allows everything.
	Identity []string  `json:"identity,omitempty"`
	Requests []Request `json:"requests"`
}

//go:embed testdata/driver.mjs
var driver []byte

const hint = "run `make partners`, which needs node and npm"

// Evaluate gives the verdict on each request of each case.
func Evaluate(t testing.TB, cases []Case) [][]Verdict {
	t.Helper()
	node := partner.LookPath(t, "node", hint)
	program := filepath.Join(t.TempDir(), "driver.mjs")
	if err := os.WriteFile(program, driver, 0o600); err != nil {
		t.Fatal(err)
	}
	var in, out, complaints bytes.Buffer
	for _, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	cmd := exec.CommandContext(t.Context(), node, program, find(t))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("the evaluator failed: %v\n%s", err, complaints.String())
	}
	verdicts := make([][]Verdict, 0, len(cases))
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var v []Verdict
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("the evaluator said %q: %v", lines.Text(), err)
		}
		verdicts = append(verdicts, v)
	}
	if err := lines.Err(); err != nil || len(verdicts) != len(cases) {
		t.Fatalf("the evaluator answered %d of %d cases: %v", len(verdicts), len(cases), err)
	}
	for i, v := range verdicts {
		if len(v) != len(cases[i].Requests) {
			t.Fatalf("the evaluator answered %d of %d requests", len(v), len(cases[i].Requests))
		}
	}
	return verdicts
}

// find gives the directory that npm installed the evaluator into: .tools/
// iam-simulate at the root of the module, where make put it.
func find(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the test runs outside the module")
		}
		dir = parent
	}
	dir = filepath.Join(dir, ".tools", "iam-simulate")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@cloud-copilot", "iam-simulate")); err != nil {
		partner.Missing(t, "iam-simulate", hint)
	}
	return dir
}
