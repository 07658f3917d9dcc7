package bench

import (
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/history"
)

// Credentials live for a hundred seconds, and fall due from the fiftieth on.
func TestMargin(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	// received is what an agent is given, so many seconds from the start.
	received := func(tenant, agent string, seconds ...int) (all []history.Received) {
		for _, s := range seconds {
			all = append(all, history.Received{
				Party: history.Party{Tenant: tenant, Agent: agent}, At: at(s), Issued: at(s), Expires: at(s + 100),
			})
		}
		return all
	}
	for name, c := range map[string]struct {
		faults   []spell
		received []history.Received
		want     margin
	}{
		"nothing":           {want: margin{inReach: 1, all: 1}},
		"no renewal":        {received: received("calm", "a", 0), want: margin{inReach: 1, all: 1}},
		"renewals":          {received: received("calm", "a", 0, 60, 125), want: margin{inReach: .35, all: .35, renewals: 2}},
		"others'":           {received: received("troubled", "a", 0, 90), want: margin{inReach: 1, all: 1}},
		"of several agents": {received: append(received("calm", "a", 0, 60), received("calm", "b", 50, 101)...), want: margin{inReach: .40, all: .40, renewals: 2}},
		"too late":          {received: received("calm", "a", 0, 110), want: margin{inReach: -.10, all: -.10, renewals: 1}},
		"a fault before it fell due": {
			faults: []spell{{at(40), at(45)}}, received: received("calm", "a", 0, 80), want: margin{inReach: .20, all: .20, renewals: 1},
		},
		"one that may not have been over for the broker": {
			faults: []spell{{at(40), at(46)}}, received: received("calm", "a", 0, 80), want: margin{inReach: 1, all: .20},
		},
		"one meanwhile, and none at the next": {
			faults: []spell{{at(70), at(71)}}, received: received("calm", "a", 0, 80, 140), want: margin{inReach: .40, all: .20, renewals: 1},
		},
		"one after it": {
			faults: []spell{{at(81), at(82)}}, received: received("calm", "a", 0, 80), want: margin{inReach: .20, all: .20, renewals: 1},
		},
	} {
		told := &chronicle{faults: c.faults, history: history.History{Received: c.received}}
		got := told.margin("calm")
		if got.renewals != c.want.renewals || !near(got.inReach, c.want.inReach) || !near(got.all, c.want.all) {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
		}
	}
}

func near(a, b float64) bool { return max(a-b, b-a) < 1e-9 }
