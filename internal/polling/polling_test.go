package polling_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/internal/polling"
)

// failing is a test that may fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// within waits until the time has come, and gives how long it waited and what
// the test said of it.
func within(ctx context.Context, t *testing.T, comes time.Duration) (took time.Duration, said string) {
	f, began, ended := &failing{TB: t}, time.Now(), make(chan struct{})
	go func() {
		defer close(ended)
		polling.Until(ctx, f, "it", func() bool { return time.Since(began) >= comes })
	}()
	<-ended
	return time.Since(began), f.said
}

func TestUntil(t *testing.T) {
	for name, test := range map[string]struct {
		limit, comes, took time.Duration
		said               string
	}{
		"so from the beginning":     {},
		"within its patience":       {comes: 59 * time.Second, took: 59 * time.Second},
		"never":                     {comes: time.Hour, took: time.Minute, said: "waited in vain for it"},
		"within a longer deadline":  {limit: 2 * time.Minute, comes: 90 * time.Second, took: 90 * time.Second},
		"not in a shorter deadline": {limit: time.Second, comes: 2 * time.Second, took: time.Second, said: "waited in vain for it"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				if took, said := within(ctx, t, test.comes); took != test.took || said != test.said {
					t.Errorf("after %v: %q; want %v, %q", took, said, test.took, test.said)
				}
			})
		})
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, nil, 0o600) }()
	polling.File(t.Context(), t, path)
	if err := <-written; err != nil {
		t.Error(err)
	}
}
