package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stokerd/stoker/internal/partner"
	"github.com/stokerd/stoker/internal/strictyaml"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// Each hint is for a reason that the API has.
func TestHintsAreForReasons(t *testing.T) {
	for name := range hints {
		if _, ok := stokerv1.ErrorReason_value["ERROR_REASON_"+name]; !ok {
			t.Errorf("there is no reason %s", name)
		}
	}
}

// The documentation and --help list the exit codes as they are.
func TestExitCodesAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/stokerctl.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d) \| ([^|]+) \|`).FindAllStringSubmatch(string(document), -1) {
		documented[row[1]] = row[2]
	}
	inHelp := map[string]string{}
	for _, row := range regexp.MustCompile(`(\d) ([^,.(]+)`).FindAllStringSubmatch(description[strings.Index(description, "Exit codes"):], -1) {
		inHelp[row[1]] = strings.TrimSpace(row[2])
	}
	for code := exitDone; code <= exitConflict; code++ {
		name := fmt.Sprint(code)
		if documented[name] == "" || !strings.HasPrefix(documented[name], inHelp[name]) {
			t.Errorf("exit code %d: documented %q, in --help %q", code, documented[name], inHelp[name])
		}
	}
	if len(documented) != exitConflict+1 {
		t.Errorf("documented: %v", documented)
	}
}

func TestExplain(t *testing.T) {
	with := func(code codes.Code, text string, reason string, retry bool) error {
		st := status.New(code, text)
		info := &errdetails.ErrorInfo{Reason: reason, Domain: "stoker"}
		var err error
		if retry {
			st, err = st.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(1500e6)}, &errdetails.RequestInfo{RequestId: "r-1"})
		} else {
			st, err = st.WithDetails(info, &errdetails.RequestInfo{RequestId: "r-1"})
		}
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("wrapped: %w", st.Err())
	}
	foreign, err := status.New(codes.NotFound, "no").WithDetails(&errdetails.ErrorInfo{Reason: "NOT_FOUND", Domain: "another"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		err  error
		want failure
	}{
		"usage":       {fmt.Errorf("x: %w", usagef("give %d", 1)), failure{code: exitUsage, text: "x: give 1"}},
		"plain":       {fmt.Errorf("disk full"), failure{code: exitFailed, text: "disk full"}},
		"wait":        {with(codes.ResourceExhausted, "busy", "LOGIN_BUSY", true), failure{exitUnavailable, "LOGIN_BUSY", "busy; try again in 2s", ""}},
		"internal":    {with(codes.Internal, "it failed", "INTERNAL", false), failure{exitFailed, "INTERNAL", "it failed; request id r-1", ""}},
		"in use":      {with(codes.FailedPrecondition, "in use", "IN_USE", false), failure{exitConflict, "IN_USE", "in use", hints["IN_USE"]}},
		"foreign":     {foreign.Err(), failure{code: exitNotFound, text: "no"}},
		"interrupted": {status.Error(codes.Canceled, "context canceled"), failure{code: exitFailed, text: "interrupted; what was asked for may have been done"}},
		"another version": {status.Error(codes.Unimplemented, "unknown method"),
			failure{code: exitFailed, text: "the broker does not know this call: unknown method", hint: "it may be of another version: see stokerctl version"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := explain(test.err); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// What the broker answers can command no terminal.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain, wörld \"x\"": "plain, wörld \"x\"", "a\x1b[2J": `a\x1b[2J`, "a\nb\tc": `a\nb\tc`, "\u202ergb": `\u202ergb`, "a\xffb": `a\ufffdb`, "\u0085": `\u0085`,
	} {
		if got := clean(text); got != want {
			t.Errorf("clean(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestAccessNames(t *testing.T) {
	for number, name := range stokerv1.Access_name {
		access, ok := parseAccess(accessName(stokerv1.Access(number)))
		if number == 0 {
			if ok {
				t.Errorf("%s can be written", name)
			}
			continue
		}
		if !ok || access != stokerv1.Access(number) {
			t.Errorf("%s does not come back", name)
		}
	}
	for _, bad := range []string{"", "unspecified", "BACKUP", "Backup", "all"} {
		if _, ok := parseAccess(bad); ok {
			t.Errorf("%q is an access", bad)
		}
	}
}

// Whatever a text is, export writes it so that apply reads it back.
func TestTextsSurviveExport(t *testing.T) {
	for _, text := range []string{
		"plain", "2024", "0x10", "1e3", "1_000", "true", "no", "null", "~", "- a", "a: b", "a #b", "#", "'", `"`, `\`, "*a", "&a", "!a", "%", "@", "`",
		"{a}", "[a]", "a,b", "?", "|", ">", " a ", "  ", "ä", "日本", "a/b/", ".", "1h0m0s", "2026-01-02", "=", "<<", "a\u00a0b", "-", "--- a", "...",
	} {
		written, err := yaml.MarshalWithOptions(resourceFile{Tenants: map[string]tenantEntry{"a": {DisplayName: &text}}}, yaml.Indent(2))
		if err != nil {
			t.Fatal(err)
		}
		var read resourceFile
		if err := strictyaml.Decode("export", written, &read).Err(); err != nil {
			t.Errorf("%q is written as\n%s: %v", text, written, err)
			continue
		}
		if got := deref(read.Tenants["a"].DisplayName); got != text {
			t.Errorf("%q comes back as %q from\n%s", text, got, written)
		}
	}
}

// The completion script is one that bash runs, and completes.
func TestCompletionInBash(t *testing.T) {
	bash := partner.LookPath(t, "bash", "install bash")
	script := completionScripts["bash"] + `
stokerctl() { test "$1 $2 $3 $4" = "__complete -- grant cr" && echo create; }
COMP_WORDS=(stokerctl grant cr); COMP_CWORD=2
_stokerctl
test "${COMPREPLY[*]}" = create
`
	if out, err := command(bash, script); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func FuzzResourceFile(f *testing.F) {
	f.Add([]byte("tenants:\n  a:\n    users:\n      b: {password: x}\n"))
	f.Add([]byte("tenants: {a: {grants: {b: {access: 1, actions: [x], lifetime: 1h}}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, _, err := readResourceFile("-", bytes.NewReader(data))
		if (file == nil) == (err == nil) {
			t.Errorf("file %v, error %v", file, err)
		}
	})
}
