package agent

import (
	"sync"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/hook"
)

// tap is a supply that remembers what was taken from it, so that a hook is told
// of a credential once that, or a later one, is in the file, and not just before.
// Its methods are safe for concurrent use.
type tap struct {
	delivery.Supply

	mu      sync.Mutex
	taken   map[string]time.Time // issue time by grant; zero: there was none to take
	waiting map[string]waiting
}

type waiting struct {
	event  hook.Event
	issued time.Time // zero for a revocation
}

func newTap(supply delivery.Supply) *tap {
	return &tap{Supply: supply, taken: make(map[string]time.Time), waiting: make(map[string]waiting)}
}

// Credential implements delivery.Supply.
func (t *tap) Credential(grant string) (client.Credential, error) {
	c, err := t.Supply.Credential(grant)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken[grant] = c.Issued
	return c, err
}

// await keeps an event until the file is as it says. A later one of the same grant
// takes its place.
func (t *tap) await(e hook.Event, issued time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[e.Grant] = waiting{e, issued}
}

// arrived gives the events that the file is as far as. failed is what kept it from
// being written: renewals then wait on, revocations do not.
func (t *tap) arrived(failed error) []hook.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var events []hook.Event
	for grant, w := range t.waiting {
		taken, looked := t.taken[grant]
		revoked := w.issued.IsZero()
		if !looked || revoked != taken.IsZero() || (!revoked && (failed != nil || taken.Before(w.issued))) {
			continue
		}
		delete(t.waiting, grant)
		events = append(events, w.event)
	}
	return events
}
