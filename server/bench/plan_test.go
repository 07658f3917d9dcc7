package bench

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// The formulas of docs/scale.md say what a simulation comes to.
func TestPlanAgreesWithSimulation(t *testing.T) {
	for _, c := range []struct {
		agents   int
		lifetime time.Duration
		outage   time.Duration
		rate     float64
	}{
		{20_000, time.Hour, 20 * time.Minute, 100},
		{20_000, time.Hour, 40 * time.Minute, 60},
		{20_000, time.Hour, 35 * time.Minute, 30},
		{20_000, 15 * time.Minute, 5 * time.Minute, 100},
		{20_000, 12 * time.Hour, 11 * time.Hour, 10},
		{3_000_000, time.Hour, 10 * time.Minute, 4000},
	} {
		got := simulate(c.agents, c.lifetime, c.outage, c.rate)
		n, w := float64(c.agents), c.outage.Seconds()/c.lifetime.Seconds()
		demand := n / (meanAge * c.lifetime.Seconds())
		recovery := recoveryTime(n*dueShare(w), n, c.rate, demand)
		for what, pair := range map[string][2]float64{
			"renewals": {got.Renewals, demand},
			"lost":     {float64(got.Lost), n * lostShare(w)},
			"recovery": {got.Recovery.Seconds(), recovery.Seconds()},
		} {
			if math.Abs(pair[0]-pair[1]) > 0.05*pair[1]+n*0.001 {
				t.Errorf("%+v: %s is %.1f simulated, %.1f by the formula", c, what, pair[0], pair[1])
			}
		}
	}
}

func situation() Situation {
	return Situation{
		Agents: 10_000, Lifetime: time.Hour, Outage: 20 * time.Minute, Back: time.Minute,
		Memory: 4 << 30, Cores: 2, Streams: 19_000, QuotaShare: 0.5,
	}
}

func TestPlan(t *testing.T) {
	p, err := MakePlan(situation(), MeasuredCosts)
	if err != nil {
		t.Fatal(err)
	}
	if p.Brokers != 1 || p.Accounts != 1 || len(p.Problems) != 0 || p.Lost != 0 {
		t.Errorf("ten thousand agents take %+v", p)
	}
	many := situation()
	many.Agents = 10_000_000
	if p, err = MakePlan(many, MeasuredCosts); err != nil {
		t.Fatal(err)
	}
	// 4831 renewals a second at 300 calls a second, half of them for renewals.
	if p.Accounts != 33 || p.Brokers < 10_000_000/19_000 {
		t.Errorf("ten million agents take %+v", p)
	}
	var out bytes.Buffer
	if err := p.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"33 account(s)", "spread the tenants", "database of its own"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the plan does not say %q:\n%s", want, &out)
		}
	}
	long := situation()
	long.Outage = 50 * time.Minute
	if p, err = MakePlan(long, MeasuredCosts); err != nil {
		t.Fatal(err)
	}
	if p.Lost == 0 || len(p.Problems) == 0 {
		t.Errorf("an outage of most of a lifetime costs nothing: %+v", p)
	}
}

func TestSituationsThatCannotBePlanned(t *testing.T) {
	for what, change := range map[string]func(*Situation){
		"no agents":         func(s *Situation) { s.Agents = 0 },
		"too many":          func(s *Situation) { s.Agents = 1e9 },
		"short lifetime":    func(s *Situation) { s.Lifetime = time.Minute },
		"long lifetime":     func(s *Situation) { s.Lifetime = 37 * time.Hour },
		"negative outage":   func(s *Situation) { s.Outage = -1 },
		"at once":           func(s *Situation) { s.Back = 0 },
		"no memory":         func(s *Situation) { s.Memory = 0 },
		"no cores":          func(s *Situation) { s.Cores = 0 },
		"no streams":        func(s *Situation) { s.Streams = 0 },
		"all but no quota":  func(s *Situation) { s.QuotaShare = 0 },
		"more than a quota": func(s *Situation) { s.QuotaShare = 1.1 },
		"no number":         func(s *Situation) { s.QuotaShare = math.NaN() },
	} {
		s := situation()
		change(&s)
		if _, err := MakePlan(s, MeasuredCosts); err == nil {
			t.Errorf("%s: planned", what)
		}
	}
}
