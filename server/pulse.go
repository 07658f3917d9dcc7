package server

import (
	"context"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/lease"
)

const (
	// pulseEvery is how often the counts are read, for what happened in the
	// last minute.
	pulseEvery = 5 * time.Second
	// The oldest of so many is a minute old.
	pulseKept = int(time.Minute/pulseEvery) + 1
)

// pulse remembers the counts of the last minute.
type pulse struct {
	counts func() lease.Counts

	mu sync.Mutex
	// kept are the counts at the last beats, oldest first.
	kept []lease.Counts
}

func newPulse(counts func() lease.Counts) *pulse {
	return &pulse{counts: counts, kept: []lease.Counts{counts()}}
}

// run beats until ctx ends.
func (p *pulse) run(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.beat()
		}
	}
}

func (p *pulse) beat() {
	now := p.counts()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = append(p.kept, now)
	if len(p.kept) > pulseKept {
		p.kept = append(p.kept[:0], p.kept[len(p.kept)-pulseKept:]...)
	}
}

// minute counts what was issued and renewed in the last minute, or since the
// start.
func (p *pulse) minute() (issued, renewed uint64) {
	now := p.counts()
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Issued - p.kept[0].Issued, now.Renewed - p.kept[0].Renewed
}
