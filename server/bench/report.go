package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what was measured.
type Report struct {
	Machine Machine `json:"machine"`
	Began   string  `json:"began"`
	// Took is in seconds.
	Took     float64   `json:"took"`
	Measures []Measure `json:"measures"`
	// Skipped says why a mode could not be measured, by its name.
	Skipped map[string]string `json:"skipped,omitempty"`
}

// Machine is where it was measured.
type Machine struct {
	System string `json:"system"`
	Cores  int    `json:"cores"`
	// Load is the average of runnable processes over a minute at the
	// beginning: well under the number of cores on a machine of one's own.
	Load float64 `json:"load"`
}

// Unit says how a value is written.
type Unit string

// The units of values.
const (
	Bytes   Unit = "B"
	Seconds Unit = "s"
	Count   Unit = "1"
	Rate    Unit = "1/s"
	Share   Unit = "share"
)

// Measure is one thing that was measured.
type Measure struct {
	Mode   string `json:"mode"`
	Name   string `json:"name"`
	Agents int    `json:"agents"`
	Unit   Unit   `json:"unit"`
	// Stoker is the broker's value, Bare that of bare grpc-go; absent where
	// there is nothing to compare with.
	Stoker float64  `json:"stoker"`
	Bare   *float64 `json:"bare,omitempty"`
	// Ratio is Stoker to Bare.
	Ratio *float64 `json:"ratio,omitempty"`
	Goal  *Goal    `json:"goal,omitempty"`
	Note  string   `json:"note,omitempty"`
}

// Goal is what a value, or the ratio where Ratio is set, should be at most, or
// at least where Least is set.
type Goal struct {
	Ratio bool    `json:"ratio"`
	Least bool    `json:"least"`
	Value float64 `json:"value"`
	// Must: it is no matter of speed. Whatever misses it is a bug.
	Must bool `json:"must"`
	Met  bool `json:"met"`
}

// skip notes that a mode could not be measured.
func (r *Report) skip(mode, why string) {
	if r.Skipped == nil {
		r.Skipped = map[string]string{}
	}
	r.Skipped[mode] = why
}

// add completes a measure and adds it.
func (r *Report) add(m Measure) {
	if m.Bare != nil && *m.Bare != 0 {
		ratio := m.Stoker / *m.Bare
		m.Ratio = &ratio
	}
	if g := m.Goal; g != nil {
		got := m.Stoker
		if g.Ratio {
			got = math.NaN()
			if m.Ratio != nil {
				got = *m.Ratio
			}
		}
		g.Met = g.Least && got >= g.Value || !g.Least && got <= g.Value
	}
	r.Measures = append(r.Measures, m)
}

func atMost(v float64) *Goal      { return &Goal{Value: v} }
func atLeast(v float64) *Goal     { return &Goal{Value: v, Least: true} }
func ratioAtMost(v float64) *Goal { return &Goal{Value: v, Ratio: true} }

// must makes a goal one that holds on any machine.
func must(g *Goal) *Goal {
	g.Must = true
	return g
}

// Broken lists the measures that missed what must hold on any machine.
func (r *Report) Broken() []Measure {
	return slices.DeleteFunc(r.Missed(), func(m Measure) bool { return !m.Goal.Must })
}

func bareValue(v float64) *float64 { return &v }

// Missed lists the measures whose goal was not met.
func (r *Report) Missed() []Measure {
	var missed []Measure
	for _, m := range r.Measures {
		if m.Goal != nil && !m.Goal.Met {
			missed = append(missed, m)
		}
	}
	return missed
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%s, %d cores, load %.1f at the beginning; %s; took %s\n\n",
		r.Machine.System, r.Machine.Cores, r.Machine.Load, r.Began, time.Duration(r.Took*float64(time.Second)).Round(time.Second)); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	write := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) } // Flush tells
	write("MODE", "AGENTS", "MEASURE", "STOKER", "BARE GRPC-GO", "RATIO", "GOAL", "")
	for _, m := range r.Measures {
		bare, ratio := "-", "-"
		if m.Bare != nil {
			bare = m.Unit.format(*m.Bare)
		}
		if m.Ratio != nil {
			ratio = fmt.Sprintf("%.2f", *m.Ratio)
		}
		write(m.Mode, fmt.Sprint(m.Agents), m.Name, m.Unit.format(m.Stoker), bare, ratio, m.Goal.describe(m.Unit), m.Note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, mode := range slices.Sorted(maps.Keys(r.Skipped)) {
		if _, err := fmt.Fprintf(out, "%s: NOT MEASURED: %s\n", mode, r.Skipped[mode]); err != nil {
			return err
		}
	}
	return nil
}

func (g *Goal) describe(u Unit) string {
	if g == nil {
		return "-"
	}
	sign, value, verdict := "<= ", u.format(g.Value), "met"
	if g.Least {
		sign = ">= "
	}
	if g.Ratio {
		value = fmt.Sprintf("ratio %.2f", g.Value)
	}
	if !g.Met {
		verdict = "MISSED"
	}
	return sign + value + " " + verdict
}

// format writes a value in three digits or so.
func (u Unit) format(v float64) string {
	switch u {
	case Bytes:
		switch {
		case v >= 1<<30:
			return fmt.Sprintf("%.2f GiB", v/(1<<30))
		case v >= 10<<20:
			return fmt.Sprintf("%.0f MiB", v/(1<<20))
		default:
			return fmt.Sprintf("%.1f KiB", v/(1<<10))
		}
	case Seconds:
		switch {
		case v == 0:
			return "0"
		case v >= 1:
			return fmt.Sprintf("%.2f s", v)
		case v >= 1e-3:
			return fmt.Sprintf("%.2f ms", v*1e3)
		default:
			return fmt.Sprintf("%.1f us", v*1e6)
		}
	case Rate:
		return fmt.Sprintf("%.0f/s", v)
	case Share:
		return fmt.Sprintf("%.0f %%", v*100)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
