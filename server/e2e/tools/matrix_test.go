//go:build unix

package tools_test

import (
	"context"
	"sync"
	"testing"
	"time"
)

// shortest is the shortest lifetime of credentials in the matrix: the broker
// replaces them after 12 to 16 seconds.
const shortest = 24 * time.Second

// unhurried is a lifetime that fits the machine, by how long the yard took to
// start: one that is busy with other things gets more time for everything.
func (y *yard) unhurried() time.Duration {
	return min(max(shortest, 5*y.took), time.Minute).Truncate(time.Second)
}

// Each tool takes credentials in each way, while they change under it.
func TestMatrix(t *testing.T) {
	y := newYard(t, shortest)
	y.lifetime = y.unhurried()
	var kept []string
	for _, k := range catalog {
		for w := range ways {
			name := cellName(k, w)
			y.grant(t, name, w.user(), k.needs())
			if w.user() == "backup@acme" {
				kept = append(kept, name)
			}
		}
	}
	y.grant(t, "canary", "backup@acme", accessBackup)
	a := y.run(t, append(kept, "canary")...)
	supply := watch(t, a, "canary", y.lifetime)

	var mu sync.Mutex
	seen := make(map[string]outcome)
	t.Run("cell", func(t *testing.T) {
		for _, k := range catalog {
			for w := range ways {
				t.Run(cellName(k, w), func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
					defer cancel()
					c := &cell{tool: k, way: w, yard: y, name: cellName(k, w), path: k.program(t)}
					if w.user() == "exec@acme" {
						c.holding = y.identity(t, c.name, w.user())
					} else {
						c.agent = a
					}
					got := c.judge(ctx, t, supply)
					mu.Lock()
					defer mu.Unlock()
					seen[c.name] = got
				})
			}
		}
	})
	if len(seen) < len(catalog)*int(ways) {
		t.Log("NOT COMPARED with docs/tools.md: not every cell was tried")
		return
	}
	documented(t, "matrix", matrixTable(seen))
	documented(t, "settings", wayTable())
	documented(t, "commands", commandTable())
}

// expected is what the catalog says of the cell.
func (c *cell) expected() outcome {
	if e, ok := c.expect[c.way]; ok {
		return e.outcome
	}
	return refreshes
}

// judge says what the tool does, and compares it with the catalog. What a tool
// does while the machine is too busy to keep it supplied says nothing of it, so
// that is not counted; what the canary did not notice is forgiven once.
func (c *cell) judge(ctx context.Context, t *testing.T, supply *canary) outcome {
	t.Helper()
	for forgiven := false; ; {
		began := time.Now()
		got, said := c.observe(ctx, t, sets)
		late := supply.sang(began)
		switch {
		case got == c.expected():
			t.Logf("it %s, after %v: %s", got, time.Since(began).Round(time.Second), said)
			return got
		case ctx.Err() == nil && (late || !forgiven):
			forgiven = forgiven || !late
			t.Logf("ONCE MORE, supply late: %v; it %s: %s", late, got, said)
		default:
			t.Errorf("it %s; the catalog says: %s. %s", got, c.expected(), said)
			return got
		}
	}
}
