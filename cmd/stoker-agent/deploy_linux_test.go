package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/config"
	"github.com/stokerd/stoker/internal/partner"
)

const unitFile = "../../deploy/systemd/stoker-agent.service"

func mustRead(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parses fails unless a command line makes sense, and gives the command.
func parses(t *testing.T, line []string) string {
	t.Helper()
	var commands commands
	parser, err := kong.New(&commands, kong.Name("stoker-agent"), variables(), kong.Writers(io.Discard, io.Discard), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	context, err := parser.Parse(line[1:])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if filepath.Base(line[0]) != "stoker-agent" {
		t.Errorf("it starts %s", line[0])
	}
	return context.Command()
}

// The unit is one that systemd takes, and starts a command that there is.
func TestUnit(t *testing.T) {
	unit := mustRead(t, unitFile)
	for line := range strings.Lines(unit) {
		if command, found := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); found {
			if got := parses(t, strings.Fields(command)); got != "run" {
				t.Errorf("it runs %s", got)
			}
		}
	}
	analyze := partner.LookPath(t, "systemd-analyze", "install systemd")
	// The program is not where the unit has it, nor need the user be there.
	local := strings.NewReplacer("/usr/local/bin/stoker-agent", "/bin/true", "User=stoker-agent", "User=daemon", "Group=stoker-agent", "Group=daemon").Replace(unit)
	file := filepath.Join(t.TempDir(), "stoker-agent.service")
	if err := os.WriteFile(file, []byte(local), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil || strings.Contains(text, filepath.Base(file)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, text)
	}
	// 2.0 of 10 is what is left to a service that must reach the network.
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", file).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "Overall exposure level") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// The property list is well-formed, and starts a command that there is.
func TestPropertyList(t *testing.T) {
	decoder := xml.NewDecoder(strings.NewReader(mustRead(t, "../../deploy/launchd/dev.stoker.agent.plist")))
	var keys, arguments []string
	var text string
	inArguments := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			text = ""
			inArguments = inArguments || (token.Name.Local == "array" && keys[len(keys)-1] == "ProgramArguments")
		case xml.CharData:
			text += string(token)
		case xml.EndElement:
			switch {
			case token.Name.Local == "key":
				keys = append(keys, text)
			case token.Name.Local == "array":
				inArguments = false
			case inArguments:
				arguments = append(arguments, text)
			}
		}
	}
	if got := parses(t, arguments); got != "run" {
		t.Errorf("it runs %s", got)
	}
	if !strings.Contains(strings.Join(keys, " "), "KeepAlive") || keys[0] != "Label" {
		t.Errorf("its keys are %v", keys)
	}
}

// The example is one that works, with files in the places of its own.
func TestExampleFile(t *testing.T) {
	dir := t.TempDir()
	clienttest.New(t).Files(dir)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	text := strings.ReplaceAll(mustRead(t, "../../deploy/stoker-agent.yaml"), "/var/lib/stoker-agent", dir)
	file := filepath.Join(dir, "stoker-agent.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (runCommand{Renew: true}).fromFile(t.Context(), f, &surroundings{keyring: ring{}}, io.Discard); err != nil {
		t.Error(err)
	}
}
