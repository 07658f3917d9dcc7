package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/internal/partner"
)

// TestMain makes the tests' program its own children, as the real program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && slices.Contains([]string{"broker", "bare", "agents"}, os.Args[1]) {
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(args []string) error {
	ctx := context.Background()
	switch args[0] {
	case "bare":
		return Bare{Dir: args[1]}.Run(ctx, os.Stdin, os.Stdout)
	case "agents":
		return Agents{File: args[1]}.Run(ctx, os.Stdin, os.Stdout)
	}
	return Broker{Config: args[1], Instant: slices.Contains(args, "--instant")}.Run(ctx, os.Stdin, os.Stdout)
}

func options(t *testing.T, modes ...string) Options {
	t.Helper()
	return Options{
		Modes: modes, Agents: 12, Rounds: 1, Lifetime: 8 * time.Second, Soak: 3 * time.Second, Dir: t.TempDir(), Progress: t.Output(),
		Child: func(kind, argument string, instant bool) []string {
			args := []string{kind, argument}
			if instant {
				args = append(args, "--instant")
			}
			return args
		},
	}
}

func measured(t *testing.T, o Options) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	report, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &table)
	left, err := os.ReadDir(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%v was left behind", left)
	}
	return report
}

// exact checks what does not depend on the speed of the machine.
func exact(t *testing.T, r *Report, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		i := slices.IndexFunc(r.Measures, func(m Measure) bool { return m.Mode+": "+m.Name == name })
		if i < 0 {
			t.Errorf("%q was not measured", name)
		} else if got := r.Measures[i].Stoker; got != value {
			t.Errorf("%s is %v, not %v", name, got, value)
		}
	}
}

func TestModesThatShareASite(t *testing.T) {
	t.Parallel()
	r := measured(t, options(t, "issue", "hold", "storm", "unary", "push", "revoke"))
	exact(t, r, map[string]float64{
		"issue: STS calls": 12, "issue: password hashes": 0, "issue: audit records": 12,
		"storm: STS calls": 0, "storm: password hashes": 0,
	})
	for _, m := range r.Measures {
		// With so few agents a figure may be anything, but it is there.
		if m.Agents != 12 || math.IsNaN(m.Stoker) || math.IsInf(m.Stoker, 0) {
			t.Errorf("%+v", m)
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	o := options(t, "restart")
	// When the broker goes, a third of this is left at least, for it to come back
	// on a slow machine.
	o.Lifetime = 40 * time.Second
	exact(t, measured(t, o), map[string]float64{
		"restart: STS calls for agents with valid credentials": 0, "restart: password hashes": 0,
		"restart: agents without a credential at any moment": 0,
	})
}

func TestOutageAndSoak(t *testing.T) {
	t.Parallel()
	exact(t, measured(t, options(t, "outage", "soak")), map[string]float64{
		"soak: credentials out of order on a stream": 0, "soak: breaches of what must always hold, in the whole history": 0, "soak: faults in the audit trail": 0,
	})
}

// Agents in processes of their own are supplied by one broker as by several.
func TestSupplyAndFleet(t *testing.T) {
	t.Parallel()
	r := measured(t, options(t, "supply", "fleet"))
	want := map[string]float64{
		"supply: streams at the end": 12, "supply: credentials out of order": 0,
	}
	if why, skipped := r.Skipped["fleet"]; skipped {
		partner.Missing(t, "PostgreSQL", why)
	} else {
		want["fleet: streams at the end"], want["fleet: credentials out of order"] = 12, 0
	}
	exact(t, r, want)
}

func TestFailover(t *testing.T) {
	t.Parallel()
	r := measured(t, options(t, "failover"))
	if why, skipped := r.Skipped["failover"]; skipped {
		partner.Missing(t, "PostgreSQL", why)
	}
	exact(t, r, map[string]float64{"failover: credentials out of order": 0})
}

func TestRunRefusals(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"unknown mode": func(o *Options) { o.Modes = []string{"dance"} },
		"no agents":    func(o *Options) { o.Agents = 0 },
		"no rounds":    func(o *Options) { o.Rounds = 0 },
		"no directory": func(o *Options) { o.Dir += "/none" },
	} {
		o := options(t)
		change(&o)
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: measured", what)
		}
	}
}

func TestReport(t *testing.T) {
	r := &Report{}
	r.add(Measure{Mode: "m", Name: "within", Unit: Seconds, Stoker: 130e-6, Bare: bareValue(100e-6), Goal: ratioAtMost(1.35)})
	r.add(Measure{Mode: "m", Name: "over", Unit: Seconds, Stoker: 2, Goal: atMost(1)})
	r.add(Measure{Mode: "m", Name: "under", Unit: Count, Stoker: 2, Goal: atLeast(3)})
	r.add(Measure{Mode: "m", Name: "nothing to compare with", Unit: Bytes, Stoker: 3 << 20, Goal: ratioAtMost(2)})
	r.skip("n", "there is none")
	var names []string
	for _, m := range r.Missed() {
		names = append(names, m.Name)
	}
	if want := []string{"over", "under", "nothing to compare with"}; !slices.Equal(names, want) {
		t.Errorf("missed %v, not %v", names, want)
	}
	var table, text bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.30", "<= ratio 1.35 met", "<= 1.00 s MISSED", ">= 3 MISSED", "3072.0 KiB", "n: NOT MEASURED: there is none"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &table)
		}
	}
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back.Measures) != 4 || *back.Measures[0].Ratio != *r.Measures[0].Ratio {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit  Unit
		value float64
		want  string
	}{
		{Bytes, 1024, "1.0 KiB"}, {Bytes, 50 << 20, "50 MiB"}, {Bytes, 3 << 29, "1.50 GiB"},
		{Seconds, 0, "0"}, {Seconds, 1.5, "1.50 s"}, {Seconds, 2e-3, "2.00 ms"}, {Seconds, 2e-6, "2.0 us"},
		{Rate, 99.6, "100/s"}, {Share, 0.5, "50 %"}, {Count, 3, "3"},
	} {
		if got := c.unit.format(c.value); got != c.want {
			t.Errorf("%v %s is written %q, not %q", c.value, c.unit, got, c.want)
		}
	}
}
