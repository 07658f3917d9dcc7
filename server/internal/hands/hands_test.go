package hands_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/hands"
)

// A job that blocks holds up no other.
func TestJobsDoNotWaitForOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, done := make(chan struct{}), make(chan int, 100)
		p := hands.New(func(job int) {
			if job == 0 {
				<-stuck
			}
			done <- job
		})
		for job := range 100 {
			p.Do(job)
		}
		synctest.Wait()
		if len(done) != 99 {
			t.Errorf("%d jobs are done, want all but the stuck one", len(done))
		}
		close(stuck)
		synctest.Wait()
		if len(done) != 100 {
			t.Errorf("%d jobs are done, want all", len(done))
		}
	})
}

// Goroutines are used again, and end when there is nothing to do.
func TestGoroutinesAreKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		here := map[string]int{}
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(here)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		p := hands.New(func(struct{}) {
			mu.Lock()
			defer mu.Unlock()
			here[goroutine()]++
		})
		go p.Keep(ctx)
		synctest.Wait()
		for range 10 {
			p.Do(struct{}{})
			synctest.Wait()
		}
		if n := count(); n != 1 {
			t.Errorf("ten jobs, one after the other, took %d goroutines", n)
		}
		<-time.After(3 * time.Second)
		p.Do(struct{}{})
		synctest.Wait()
		if n := count(); n != 2 {
			t.Errorf("%d goroutines: the first should have ended, and another begun", n)
		}
		stop()
		synctest.Wait()
		for range 2 {
			p.Do(struct{}{})
			synctest.Wait()
		}
		if n := count(); n != 4 {
			t.Errorf("%d goroutines: none is kept after the end", n)
		}
	})
}

// A crowd's goroutines do not stay because jobs go on coming.
func TestCrowdLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		crowd := make(chan struct{})
		p := hands.New(func(wait <-chan struct{}) {
			if wait != nil {
				<-wait
			}
		})
		go p.Keep(ctx)
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			p.Do(crowd)
		}
		close(crowd)
		for range 50 {
			<-time.After(100 * time.Millisecond)
			p.Do(nil)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("%d goroutines are kept for one job at a time", n)
		}
	})
}

// goroutine names the one it is called on.
func goroutine() string {
	b := make([]byte, 64)
	b = b[:runtime.Stack(b, false)]
	for i, c := range b {
		if c == '[' {
			return string(b[:i])
		}
	}
	return string(b)
}
