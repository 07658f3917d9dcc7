package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/hands"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Directory is what the registry looks up; *directory.Directory is one. It
// answers from memory.
type Directory interface {
	Finder
	// GrantsFor lists the tenant's grants and the user's own, by name.
	GrantsFor(tenantID, userID string) []storage.Grant
	Grant(id string) (storage.Grant, bool)
	RevokedCertificate(id string) (storage.Certificate, bool)
}

// Checker says whether a caller is still good; *authn.Authenticator is one. It
// answers from memory, and its errors carry a reason.
type Checker interface {
	Check(authn.Principal) error
}

// Subscription is one stream's part in a lease; *lease.Subscription is one.
type Subscription interface {
	Acknowledge(credentialID string)
	// Refused asks for a replacement, or says why there is none. The code is
	// S3's, for the audit trail.
	Refused(credentialID, errorCode string) error
	Supply() lease.Supply
	// Close ends it. Once it has returned nothing is delivered.
	Close()
}

// Leases supplies holders under grants. See Managed.
type Leases interface {
	Subscribe(h lease.Holder, grantID string, held *lease.Held, to lease.Subscriber) Subscription
}

// Managed makes Leases of the lease manager.
func Managed(m *lease.Manager) Leases { return managed{m} }

type managed struct{ manager *lease.Manager }

func (m managed) Subscribe(h lease.Holder, grantID string, held *lease.Held, to lease.Subscriber) Subscription {
	return m.manager.Subscribe(h, grantID, held, to)
}

// Config is what a registry is made of. Fields without a default are required.
type Config struct {
	Directory Directory
	Checker   Checker
	Leases    Leases
	Log       *slog.Logger
	// Heartbeat is the time between two heartbeats of a stream. Default 30s.
	Heartbeat time.Duration
	// LoginPace is how long one login takes of another's time, on average: as
	// far apart agents are told to come that have to log in again for the same
	// reason. Nil: they are told nothing.
	LoginPace func() time.Duration
	// PerAgent is how many streams an agent may have open. Default 8.
	PerAgent int
	// Now is the wall clock. Default time.Now.
	Now func() time.Time
}

const (
	defaultHeartbeat = 30 * time.Second
	defaultPerAgent  = 8
)

// Registry has all open streams. Its methods are safe for concurrent use.
type Registry struct {
	Config
	// start is what the registry's own clock counts from.
	start  time.Time
	timers timers
	counts counts
	// senders drain outboxes.
	senders *hands.Pool[*Stream]
	telling telling

	// mu is held for moments, and nothing is called under it. No stream's
	// lock is taken while it is held.
	mu    sync.Mutex
	index index
	// open counts the streams; empty is closed when there are none, if
	// anybody waits.
	open  int
	empty chan struct{}
	// opened counts all streams that ever were.
	opened int64
	// watched finds the tenant of a grant that is gone.
	watched map[string]watched
	// window is how long a departure takes; 0: the broker stays. It is
	// written with mu held.
	window atomic.Int64
}

// watched is a grant that streams have subscribed to.
type watched struct {
	tenantID string
	streams  int
}

// New makes a registry. Until Run nothing that depends on time happens.
func New(c Config) (*Registry, error) {
	if c.Directory == nil || c.Checker == nil || c.Leases == nil || c.Log == nil {
		return nil, errors.New("streams: directory, checker, leases and log are all required")
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.PerAgent == 0 {
		c.PerAgent = defaultPerAgent
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Heartbeat < 0 || c.PerAgent < 0 {
		return nil, fmt.Errorf("streams: neither the heartbeat (%s) nor the streams of an agent (%d) may be negative", c.Heartbeat, c.PerAgent)
	}
	r := &Registry{Config: c, start: time.Now(), index: newIndex(), watched: map[string]watched{}}
	r.timers.earlier = make(chan struct{}, 1)
	r.senders = hands.New((*Stream).work)
	r.counts.ended = map[string]int64{}
	return r, nil
}

// Run sends heartbeats and ends streams whose time is over, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { r.senders.Keep(ctx) })
	r.timers.run(ctx, r.clock, (*Stream).wake)
	both.Wait()
	return nil
}

// clock is the time since the registry's start, which no setting of the
// computer's clock changes.
func (r *Registry) clock() time.Duration { return time.Since(r.start) }

// Open opens a stream for an agent's user, or for a service that acts for a
// tenant, who has been authenticated; the stream keeps p, which must not change.
// The caller receives the agent's messages, gives them to Handle, and calls
// Close in any case. TOO_MANY_STREAMS, DRAINING, or what makes the caller no
// longer good.
func (r *Registry) Open(p *authn.Principal, c Conn) (*Stream, error) {
	agent, service := p.AgentID != "" && p.UserID != "", p.Kind == authn.Service && p.Purpose != ""
	if p.TenantID == "" || agent == service {
		return nil, reason.New(reason.CallNotAllowed, "a stream is for a user on an agent, or for a service")
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make a stream's id: %w", err)
	}
	s := &Stream{
		registry: r, conn: c, principal: p, id: id,
		opened: r.Now().Round(0), began: r.clock(),
		place: notScheduled,
	}
	if err := r.admit(s); err != nil {
		return nil, err
	}
	// Not before the stream is in the index: a change that this does not see
	// yet will find the stream there.
	if err := r.Checker.Check(*p); err != nil {
		r.forget(s)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.schedule(s.began)
	}
	return s, nil
}

// admit puts the stream among the open ones, if the agent may have another.
func (r *Registry) admit(s *Stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.window.Load() != 0 {
		return r.errDraining()
	}
	n, most := 0, r.PerAgent
	if s.serves() {
		most = perService
	}
	for range r.index.all(ofAgent, s.key(ofAgent)) {
		n++
	}
	if n >= most {
		return reason.New(reason.TooManyStreams, "the caller has %d open streams, as many as it may; close some", n).After(time.Minute)
	}
	s.phase = r.phaseOf(r.opened)
	r.opened++
	r.open++
	r.index.add(s)
	return nil
}

// forget takes the stream from the open ones.
func (r *Registry) forget(s *Stream) {
	r.timers.drop(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index.remove(s)
	if r.open--; r.open == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

// watch notes that a stream has subscribed to the grant.
func (r *Registry) watch(g storage.Grant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[g.ID]
	r.watched[g.ID] = watched{g.TenantID, w.streams + 1}
}

// unwatch takes one watch back.
func (r *Registry) unwatch(grantID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watched[grantID]
	if w.streams--; w.streams > 0 {
		r.watched[grantID] = w
	} else {
		delete(r.watched, grantID)
	}
}

// everyone gives all open streams.
func (r *Registry) everyone() []*Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Stream, 0, r.open)
	for tenantID := range r.index.heads[ofTenant] {
		for s := range r.index.all(ofTenant, tenantID) {
			all = append(all, s)
		}
	}
	return all
}
