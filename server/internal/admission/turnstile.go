package admission

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// soonest and latest bound when whoever is turned away is told to come
	// back.
	soonest = time.Second
	latest  = time.Minute
	// slowestPace bounds the time between two who leave that is counted on: a
	// pause in between says nothing of what can be done.
	slowestPace = 100 * time.Millisecond
	// weight is how much of the average the last one makes.
	weight = 16
)

// Turnstile bounds how many do something at once, and tells those beyond when
// to come back: each at another time, as fast as those before have been served
// of late. It is safe for concurrent use.
type Turnstile struct {
	most int

	mu     sync.Mutex
	inside int
	// pace is how long it took of late from one who left to the next, and left
	// when the last one did.
	pace time.Duration
	left time.Time
	// slot is when the last one that was turned away may come back.
	slot time.Time
}

// NewTurnstile makes one that lets so many in at once.
func NewTurnstile(most int) *Turnstile { return &Turnstile{most: max(1, most)} }

// Enter lets the caller in, who must Leave, or says how long to stay away.
func (t *Turnstile) Enter() (wait time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.inside < t.most {
		if t.inside == 0 {
			t.left = now
		}
		t.inside++
		return 0, true
	}
	if earliest := now.Add(soonest); t.slot.Before(earliest) {
		t.slot = earliest
	}
	wait = t.slot.Sub(now)
	t.slot = t.slot.Add(max(t.pace, time.Microsecond))
	if wait > latest {
		// Nobody else gets a moment of their own until that is a minute away.
		t.slot = now.Add(latest + time.Microsecond)
		wait = latest - rand.N(latest/2)
	}
	return wait, false
}

// Leave gives the place to another.
func (t *Turnstile) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	took := min(now.Sub(t.left), slowestPace)
	t.pace += (took - t.pace) / weight
	t.left = now
	t.inside--
}
