package stream

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// Stats counts since the registry's start.
type Stats struct {
	// Open is how many streams are open now, Opened how many ever were.
	Open, Opened int64
	// Messages handed to the transport, by kind.
	Welcomes, Credentials, Problems, Revocations, Reconnects, Heartbeats int64
	// Ended counts streams by why they ended: a reason's name, EndedOK or
	// EndedByAgent.
	Ended map[string]int64
}

// Ends that carry no reason.
const (
	// EndedOK is the end after a farewell.
	EndedOK = "OK"
	// EndedByAgent is a call that the agent, or the network between, ended.
	EndedByAgent = "BY_AGENT"
)

// counts has its own lock, under which nothing is called.
type counts struct {
	mu    sync.Mutex
	stats Stats
	ended map[string]int64
}

// Stats gives the counts.
func (r *Registry) Stats() Stats {
	r.counts.mu.Lock()
	stats := r.counts.stats
	stats.Ended = maps.Clone(r.counts.ended)
	r.counts.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	stats.Open, stats.Opened = int64(r.open), r.opened
	return stats
}

func (r *Registry) noteSend(m Message) {
	r.counts.mu.Lock()
	defer r.counts.mu.Unlock()
	n := &r.counts.stats
	switch {
	case m.Welcome != nil:
		n.Welcomes++
	case m.Credential != nil:
		n.Credentials++
	case m.Problem != nil:
		n.Problems++
	case m.Revoked != nil:
		n.Revocations++
	case m.Reconnect != nil:
		n.Reconnects++
	case m.Heartbeat != nil:
		n.Heartbeats++
	}
}

func (r *Registry) noteEnd(err error) {
	why := EndedByAgent
	var known *reason.Error
	switch {
	case err == nil:
		why = EndedOK
	case errors.As(err, &known):
		why = string(known.Reason)
	}
	r.counts.mu.Lock()
	defer r.counts.mu.Unlock()
	r.counts.ended[why]++
}

// logEnd notes the end of a stream that the broker ended for a reason.
func (r *Registry) logEnd(s *Stream) {
	var why *reason.Error
	if !errors.As(s.err, &why) {
		return
	}
	p := s.principal
	r.Log.Info("stream ended", "stream", s.ID(), "tenant", p.Tenant, "agent", p.Agent, "login", p.Login,
		"reason", string(why.Reason), "error", why.Error(), "open_for", (r.clock() - s.began).Round(time.Millisecond).String())
}
