//go:build unix

package tools_test

import (
	"context"
	"testing"
	"time"
)

// The broker is stopped from before a renewal until after it was due. The tools
// go on with the last good credential, and with the next once it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	// A renewal is due after 50 to 65 % of it. What is left is for agents to
	// come back, whose delays grow to a minute while the broker is away.
	const lifetime = 220 * time.Second
	y := newYard(t, lifetime)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	began := time.Now()
	c := y.hire(ctx, t, everyTool())
	at := func(share int) func(*job) bool {
		moment := began.Add(lifetime * time.Duration(share) / 100)
		return func(j *job) bool { return j.over() || time.Now().After(moment) }
	}
	c.work(ctx, t, "its first request", worked(nil, 1))
	c.work(ctx, t, "the last moment before a renewal", at(45))
	y.Stop()
	stopped, before := y.gate.issued(), c.requests()

	c.work(ctx, t, "the renewals to be overdue", at(66))
	c.work(ctx, t, "a request while the broker is away", worked(before, 1))
	if n := y.gate.issued(); n != stopped {
		t.Fatalf("%d credentials were issued while the broker was away", n-stopped)
	}
	t.Logf("the broker comes back after %v of %v", time.Since(began).Round(time.Second), lifetime)
	y.Restart()
	c.work(ctx, t, "the next credential", func(j *job) bool { return j.over() || j.tally().used > 1 })
	for _, j := range c.jobs {
		j.finish(time.Minute)
		if j.err != nil || j.tally().expired > 0 {
			t.Errorf("%s: %s", j.cell.name, j.said())
		}
	}
	documented(t, "outage", spotList(t, c))
}
