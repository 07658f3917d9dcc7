package sqlstore_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

func TestBellCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bell sqlstore.Bell
		ctx, cancel := context.WithCancel(t.Context())
		busy, gone := bell.Listen(t.Context()), bell.Listen(ctx)
		cancel()
		synctest.Wait()
		if _, open := <-gone; open {
			t.Error("a listener whose context ended got a value")
		}
		for range 3 {
			bell.Ring()
		}
		<-busy
		select {
		case <-busy:
			t.Error("three rings were more than one value")
		default:
		}
		bell.Ring()
		bell.Close()
		if _, open := <-busy; !open {
			t.Error("closing took away a value that was there")
		}
		if _, open := <-busy; open {
			t.Error("the channel is open after Close")
		}
		if _, open := <-bell.Listen(t.Context()); open {
			t.Error("a closed bell can be listened to")
		}
		bell.Ring()
		bell.Close()
	})
}
