//go:build unix

package tools_test

import (
	"context"
	"sync"
	"testing"
	"time"
)

// crew is several tools that work at the same time.
type crew struct {
	*yard
	cells []*cell
	jobs  []*job
}

// spot is a cell of a crew.
type spot struct {
	tool string
	way  way
}

// everyTool is each tool that refreshes from the endpoint, by that, and one for
// each other way.
func everyTool() []spot {
	var spots []spot
	for _, k := range catalog {
		if _, unlike := k.expect[byEndpoint]; !unlike {
			spots = append(spots, spot{k.slug, byEndpoint})
		}
	}
	return append(spots, spot{"awscli", byProcess}, spot{"restic", byFile}, spot{"go", byExec})
}

// hire starts an agent and the tools. All of them must be installed.
func (y *yard) hire(ctx context.Context, t *testing.T, spots []spot) *crew {
	t.Helper()
	c := &crew{yard: y}
	var kept []string
	for _, s := range spots {
		k := toolNamed(t, s.tool)
		name := cellName(k, s.way)
		y.grant(t, name, s.way.user(), k.needs())
		if s.way.user() == "backup@acme" {
			kept = append(kept, name)
		}
		one := &cell{tool: k, way: s.way, yard: y, name: name}
		if s.way.user() == "exec@acme" {
			one.holding = y.identity(t, name, s.way.user())
		}
		c.cells = append(c.cells, one)
	}
	a := y.run(t, kept...)
	c.jobs = make([]*job, len(c.cells))
	var starting sync.WaitGroup
	for i, one := range c.cells {
		one.path = one.program(t)
		if one.holding == nil {
			one.agent = a
		}
		starting.Go(func() {
			j, failed := one.start(ctx, t)
			if j == nil {
				t.Errorf("%s does not start: %s", one.name, failed)
			}
			c.jobs[i] = j
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return c
}

func toolNamed(t *testing.T, slug string) tool {
	t.Helper()
	for _, k := range catalog {
		if k.slug == slug {
			return k
		}
	}
	t.Fatalf("there is no tool %s", slug)
	return tool{}
}

// tally is what was seen of one tool since it began.
func (j *job) tally() tally { return j.cell.gate.tally(j.cell.name+"/", j.began) }

// work keeps all tools busy until each has done what is wanted.
func (c *crew) work(ctx context.Context, t *testing.T, what string, done func(*job) bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var waiting []*job
		for _, j := range c.jobs {
			j.feed()
			if !done(j) {
				waiting = append(waiting, j)
			}
		}
		if len(waiting) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			for _, j := range waiting {
				t.Errorf("%s: waited in vain for %s: %s", j.cell.name, what, j.said())
			}
			t.FailNow()
		case <-tick.C:
		}
	}
}

// worked says whether the tool has made so many requests more than before.
func worked(before map[*job]int, more int) func(*job) bool {
	return func(j *job) bool { return j.over() || j.tally().requests >= before[j]+more }
}

func (c *crew) requests() map[*job]int {
	counts := make(map[*job]int)
	for _, j := range c.jobs {
		counts[j] = j.tally().requests
	}
	return counts
}
