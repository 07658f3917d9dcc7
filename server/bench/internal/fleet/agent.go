package fleet

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/light"
)

const (
	streamPath = stokerv1.CredentialService_StreamCredentials_FullMethodName
	unaryPath  = stokerv1.CredentialService_GetCredentials_FullMethodName
	// authority is what agents call the broker.
	authority = "localhost"
	// connectLimit bounds one connection, as in package client.
	connectLimit = 10 * time.Second
)

// Held is what an agent knows of the credential that it holds.
type Held struct {
	ID, Grant       string
	Issued, Expires time.Time
}

func (h Held) valid(now time.Time) bool { return h.ID != "" && h.Expires.After(now) }

// left is the share of its life that is left.
func (h Held) left(now time.Time) float64 {
	return float64(h.Expires.Sub(now)) / float64(h.Expires.Sub(h.Issued))
}

// agent is one agent.
type agent struct {
	fleet *Fleet
	index int

	mu       sync.Mutex
	identity Identity
	link     *link // nil: not connected
	held     Held
	// deaf: the next stream reads next to nothing. skew is how wrong the
	// agent's clock is.
	deaf bool
	skew time.Duration
	// failures counts connections in a row that brought nothing.
	failures int
	// coming is the timer of a return.
	coming *time.Timer
}

func (a *agent) holding() Held {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// who is the agent's identity.
func (a *agent) who() Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity
}

// metadata is that of all its calls.
func (i Identity) metadata() []light.Header {
	return []light.Header{{Name: "authorization", Value: "Bearer " + i.Token}}
}

// dial opens a connection to the broker with the fewest, or to the next that
// answers. It counts there until it is closed.
func (a *agent) dial(ctx context.Context, as Identity, deaf bool, to light.Handler) (conn *light.Conn, at *broker, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	for _, at = range a.fleet.order() {
		at.linked.Add(1)
		conn, err = light.Dial(ctx, light.Target{Address: at.address, Source: as.Source, TLS: as.TLS, Authority: authority, Deaf: deaf}, to)
		if err == nil {
			return conn, at, nil
		}
		at.linked.Add(-1)
	}
	return nil, nil, err
}

// connect opens a stream and subscribes with what is held, unless there is a
// stream.
func (a *agent) connect(ctx context.Context) error {
	l := &link{agent: a, began: time.Now()}
	a.mu.Lock()
	if a.link != nil {
		a.mu.Unlock()
		return nil
	}
	l.identity, l.deaf, a.deaf = a.identity, a.deaf, false
	l.id = a.fleet.streams.Add(1)
	a.link = l
	subscription := a.subscription(l.began)
	a.mu.Unlock()
	a.fleet.counts.dials.Add(1)
	a.fleet.counts.linked.Add(1)
	conn, at, err := a.dial(ctx, l.identity, l.deaf, l)
	if err != nil {
		l.over(err.Error(), true)
		return err
	}
	a.mu.Lock()
	l.conn, l.broker = conn, at
	if l.gone {
		at.linked.Add(-1)
	}
	unwanted := l.unwanted
	a.mu.Unlock()
	if unwanted {
		conn.Close()
		return nil
	}
	message, err := proto.Marshal(subscription)
	if err == nil {
		_, err = conn.Begin(streamPath, l.identity.metadata(), message, false)
	}
	if err != nil {
		conn.Close() // Closed comes
	}
	return err
}

func (a *agent) subscription(now time.Time) *stokerv1.StreamCredentialsRequest {
	s := &stokerv1.Subscribe{Client: "stoker-bench"}
	if a.held.valid(now.Add(a.skew)) {
		s.Held = []*stokerv1.HeldCredential{{Id: a.held.ID, Grant: a.held.Grant, ExpireTime: timestamppb.New(a.held.Expires.Add(a.skew))}}
	}
	return &stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: s}}
}

// lost forgets a link that has ended, and comes back if the fleet does.
func (a *agent) lost(l *link) {
	f := a.fleet
	a.mu.Lock()
	defer a.mu.Unlock()
	if l.broker != nil {
		l.broker.linked.Add(-1)
	}
	a.link, l.gone = nil, true
	if f.returning.Load() && f.ctx.Err() == nil {
		f.working.Add(1)
		a.coming = time.AfterFunc(a.pause(l), a.comeBack)
	}
	f.counts.linked.Add(-1)
}

// The delays of package client, see its pace.
const (
	firstDelay   = time.Second
	restedDelay  = 10 * time.Second
	longestDelay = time.Minute
)

// pause is how long an agent waits after a stream: as long as the broker said,
// and a draw from a bound that grows with each failure. mu is held.
func (a *agent) pause(l *link) time.Duration {
	if l.useful.Load() {
		a.failures = 0
	}
	advice := time.Duration(l.advice.Load())
	if l.leaving.Load() {
		return advice
	}
	life := max(0, time.Until(a.held.Expires))
	bound := min(max(life/10, firstDelay), restedDelay)
	bound = min(bound<<min(max(a.failures-1, 0), 6), longestDelay)
	a.failures++
	return advice + rand.N(bound)
}

// comeBack connects when there is a place.
func (a *agent) comeBack() {
	f := a.fleet
	defer f.working.Done()
	select {
	case f.places <- struct{}{}:
	case <-f.ctx.Done():
		return
	}
	defer func() { <-f.places }()
	if err := a.connect(f.ctx); err != nil && f.ctx.Err() == nil {
		f.counts.failed(err)
	}
}

// hangUp closes the connection, if there is one, or as soon as there is.
func (a *agent) hangUp() {
	a.mu.Lock()
	var conn *light.Conn
	if a.link != nil {
		conn, a.link.unwanted = a.link.conn, true
	}
	a.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}
