package admission_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/admission"
)

// Those beyond the limit are told to come back at different times, at the pace
// at which those before were served.
func TestTurnstileSpreadsThoseBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, each = 10, 20 * time.Millisecond
		door := admission.NewTurnstile(most)
		for range most {
			if wait, ok := door.Enter(); !ok {
				t.Fatalf("turned away for %v while there was room", wait)
			}
		}
		for range 200 {
			<-time.After(each)
			door.Leave()
			if _, ok := door.Enter(); !ok {
				t.Fatal("a place that was given up is not to be had")
			}
		}
		var last time.Duration
		for i := range 100 {
			wait, ok := door.Enter()
			if ok {
				t.Fatal("one more than the most is inside")
			}
			if i == 0 && wait != time.Second {
				t.Errorf("the first comes back after %v", wait)
			}
			if step := wait - last; i > 0 && (step < each*9/10 || step > each) {
				t.Errorf("the one after %v comes back after %v", last, wait)
			}
			last = wait
		}
	})
}

// However many come, nobody is sent away for more than a minute, and nobody to
// the same moment as all others.
func TestTurnstileSendsNobodyAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := admission.NewTurnstile(0) // one at least
		if _, ok := door.Enter(); !ok {
			t.Fatal("nobody may enter")
		}
		for range 100 {
			<-time.After(time.Hour) // a pause says nothing of the pace
			door.Leave()
			if _, ok := door.Enter(); !ok {
				t.Fatal("a place that was given up is not to be had")
			}
		}
		at := map[time.Duration]bool{}
		for range 5000 {
			wait, _ := door.Enter()
			if wait < time.Second || wait > time.Minute {
				t.Fatalf("sent away for %v", wait)
			}
			at[wait] = true
		}
		if len(at) < 4000 {
			t.Errorf("5000 come back at %d moments", len(at))
		}
	})
}
