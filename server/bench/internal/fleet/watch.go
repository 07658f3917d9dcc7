package fleet

import (
	"sync"
	"time"
)

// Extremes are the worst that was seen while watching.
type Extremes struct {
	// Dry is the most agents at once that had no valid credential, and
	// Disconnected the most without a stream.
	Dry, Disconnected int
	// Least is the least share of its life that any valid credential had.
	Least float64
}

// Add makes them those of another fleet as well. The numbers are added up: the
// worst moments are taken for one and the same.
func (e *Extremes) Add(o Extremes) {
	e.Dry += o.Dry
	e.Disconnected += o.Disconnected
	e.Least = min(e.Least, o.Least)
}

// Watch looks at all agents again and again until stop is called, which gives
// what it saw.
func (f *Fleet) Watch(every time.Duration) (stop func() Extremes) {
	worst := Extremes{Least: 1}
	end := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			f.look(&worst)
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceValue(func() Extremes {
		close(end)
		watching.Wait()
		return worst
	})
}

func (f *Fleet) look(worst *Extremes) {
	now, dry := time.Now(), 0
	for _, a := range f.agents {
		if h := a.holding(); h.valid(now) {
			worst.Least = min(worst.Least, h.left(now))
		} else {
			dry++
		}
	}
	worst.Dry = max(worst.Dry, dry)
	worst.Disconnected = max(worst.Disconnected, len(f.agents)-f.Connected())
}
