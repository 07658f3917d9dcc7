package server

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/lease"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var issued, renewed atomic.Uint64
		issued.Store(100)
		p := newPulse(func() lease.Counts { return lease.Counts{Issued: issued.Load(), Renewed: renewed.Load()} })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.run(ctx)
		}()
		want := func(i, r uint64) {
			t.Helper()
			synctest.Wait()
			// The minute is one to a beat.
			if gotI, gotR := p.minute(); gotI != i || gotR < r || r == 0 && gotR > 0 || gotR > r+5 {
				t.Errorf("%d issued and %d renewed in the last minute, want %d and %d", gotI, gotR, i, r)
			}
		}
		want(0, 0)
		issued.Add(3)
		want(3, 0)
		for range 600 { // a renewal a second
			<-time.After(time.Second)
			renewed.Add(1)
		}
		want(0, 60)
		<-time.After(30 * time.Second)
		want(0, 30)
		<-time.After(time.Hour)
		want(0, 0)
		cancel()
		<-ended
	})
}
