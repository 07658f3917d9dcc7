package polling

import (
	"context"
	"os"
	"testing"
	"time"
)

const (
	// interval is how long it waits between two questions.
	interval = 25 * time.Millisecond
	// patience bounds the waiting where the context does not. Nothing is
	// measured by it: a machine may be busy with other things.
	patience = time.Minute
)

// Until asks until it is so. It ends the test if that is not before the
// context's end, or within a minute where the context has no deadline. What
// is what was waited for, such as "the agent to be back".
func Until(ctx context.Context, t testing.TB, what string, so func() bool) {
	t.Helper()
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// File is Until there is something at the path.
func File(ctx context.Context, t testing.TB, path string) {
	t.Helper()
	Until(ctx, t, path, func() bool { _, err := os.Stat(path); return err == nil })
}
