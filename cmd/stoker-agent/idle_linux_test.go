package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
)

// What an idle agent may take.
const (
	mostResident = 20 << 20
	idleFor      = 3 * time.Second
)

func pidOf(r *running) string { return strconv.Itoa(r.command.Process.Pid) }

// An idle agent, built as it is shipped, takes under 20 MiB and no measurable CPU.
func TestIdle(t *testing.T) {
	w := newWorld(t, clienttest.WithGrants("photos", "papers"))
	w.addSecond(t)
	file := configured(t, w, `
users:
  nightly@acme: {password_file: password, grants: [photos]}
  audit@acme: {password_file: second, grants: [papers]}
credentials_file: kept/credentials
hook: {command: [/bin/true]}
`)
	program := filepath.Join(w.dir, "stoker-agent.program")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	r := w.startProgram(t, program, nil, "run", "--config", file)
	r.line(t, "/v1/credentials/photos")
	w.wait(t, "nothing is left to do", func(code int, r agent.Report) bool {
		for _, u := range r.Users {
			if len(u.Grants) != 1 || u.Grants[0].Hook == nil {
				return false
			}
		}
		return code == 0
	})
	for range 10 { // as tools do for a while
		if out, err := exec.CommandContext(t.Context(), program, "status", "--socket", w.place("agent.sock")).CombinedOutput(); err != nil && !strings.Contains(string(out), "stoker-agent") {
			t.Fatalf("status: %v\n%s", err, out)
		}
	}
	before := ticks(t, r)
	<-time.After(idleFor)
	spent := ticks(t, r) - before
	var resident int
	for line := range strings.Lines(mustRead(t, "/proc/"+pidOf(r)+"/status")) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			resident = kib << 10
		}
	}
	r.stop(t)
	t.Logf("%.1f MiB resident, %d ticks of CPU in %s", float64(resident)/(1<<20), spent, idleFor)
	if resident == 0 || resident > mostResident {
		t.Errorf("it holds %d bytes", resident)
	}
	if spent > 2 { // a hundredth of a second each
		t.Errorf("it spent %d ticks in %s", spent, idleFor)
	}
}

// ticks is the CPU time that a process has spent.
func ticks(t *testing.T, r *running) int {
	t.Helper()
	_, rest, _ := strings.Cut(mustRead(t, "/proc/"+pidOf(r)+"/stat"), ") ")
	total := 0
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// A crash leaves no image of the agent's memory behind.
func TestRunForbidsCoreDumps(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, nil, "run", "--listen", "127.0.0.1:0")
	r.line(t, "FULL_URI")
	text := mustRead(t, "/proc/"+pidOf(r)+"/limits")
	r.stop(t)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if f := strings.Fields(rest); f[0] != "0" || f[1] != "0" {
				t.Errorf("core dumps may have %s", rest)
			}
			return
		}
	}
	t.Errorf("no limit of core dumps in\n%s", text)
}
