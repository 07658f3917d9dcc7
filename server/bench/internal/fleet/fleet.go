package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Identity is one agent.
type Identity struct {
	TLS *tls.Config
	// Token is the access token.
	Token  string
	Source netip.Addr
	// Group is what Stats are kept apart by.
	Group int
	// Serial and CertificateEnd are of the certificate, for the journal alone.
	Serial         string
	CertificateEnd time.Time
}

// Options say how a fleet behaves.
type Options struct {
	Agents []Identity
	// Brokers are the addresses. An agent connects to the one with the fewest
	// of the fleet's agents, as a balancer would send it, or to the next if
	// that does not answer.
	Brokers []string
	// Return makes agents come back when their stream ends, with the pace of
	// package client. Otherwise they stay away until Connect.
	Return bool
	// Width is how many connect at once. Default 64.
	Width int
	// Journal is told what the agents see; may be nil.
	Journal Journal
}

// Fleet is a number of agents. Its methods are safe for concurrent use, except
// that there is one Wave at a time.
type Fleet struct {
	agents    []*agent
	brokers   []*broker
	returning atomic.Bool

	// ctx is that of connections being made; cancel ends the fleet.
	ctx     context.Context
	cancel  context.CancelFunc
	places  chan struct{} // one for each connection being made
	working sync.WaitGroup

	journal Journal
	streams atomic.Int64 // that were begun
	graves  graves

	wave    atomic.Pointer[Wave]
	counts  counts
	sampled samples
}

const defaultWidth = 64

// New makes a fleet; nobody connects yet. Close ends it.
func New(o Options) (*Fleet, error) {
	if len(o.Agents) == 0 || len(o.Brokers) == 0 {
		return nil, errors.New("a fleet needs agents and a broker")
	}
	if o.Width == 0 {
		o.Width = defaultWidth
	}
	f := &Fleet{places: make(chan struct{}, o.Width)}
	for _, address := range o.Brokers {
		f.brokers = append(f.brokers, &broker{address: address})
	}
	f.journal = o.Journal
	f.returning.Store(o.Return)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.counts.init()
	f.agents = make([]*agent, len(o.Agents))
	for i, identity := range o.Agents {
		f.agents[i] = &agent{fleet: f, index: i, identity: identity}
	}
	return f, nil
}

// Size is how many agents there are.
func (f *Fleet) Size() int { return len(f.agents) }

// connectTries is how often an agent that is to be connected tries: a machine
// that is busy with other things may be too slow for one handshake.
const connectTries = 5

// Connect connects the first n agents, as far as they are not connected, as
// many at once as the fleet is wide. It returns once each has sent its
// subscription, or with the first error of one that has tried often enough.
func (f *Fleet) Connect(ctx context.Context, n int) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(cap(f.places))
	for _, a := range f.agents[:n] {
		if ctx.Err() != nil {
			break
		}
		all.Go(func() (err error) {
			for range connectTries {
				if err = a.connect(ctx); err == nil || ctx.Err() != nil {
					break
				}
				f.counts.failed(err)
			}
			return err
		})
	}
	return all.Wait()
}

// ConnectOver connects all agents one after the other, evenly over the time,
// so that what is renewed later is spread likewise. What fails is tried again
// by a fleet that returns, and counted.
func (f *Fleet) ConnectOver(ctx context.Context, over time.Duration) error {
	begin := time.Now()
	all, connecting := errgroup.WithContext(ctx)
	all.SetLimit(cap(f.places))
	for i, a := range f.agents {
		at := begin.Add(time.Duration(float64(over) * float64(i) / float64(len(f.agents))))
		if wait := time.Until(at); wait > 0 {
			select {
			case <-connecting.Done():
			case <-time.After(wait):
			}
		}
		if connecting.Err() != nil {
			break
		}
		all.Go(func() error {
			if err := a.connect(connecting); err != nil {
				f.counts.failed(err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// Disconnect closes all connections, and returns when the agents know.
func (f *Fleet) Disconnect(ctx context.Context) error {
	was := f.returning.Swap(false)
	defer f.returning.Store(was)
	for _, a := range f.agents {
		a.hangUp()
	}
	return f.until(ctx, func() bool { return f.counts.linked.Load() == 0 })
}

// Return says whether agents come back by themselves from now on.
func (f *Fleet) Return(comes bool) { f.returning.Store(comes) }

// Connected is how many streams are open and were welcomed.
func (f *Fleet) Connected() int { return int(f.counts.connected.Load()) }

// AwaitConnected waits until so many streams are open.
func (f *Fleet) AwaitConnected(ctx context.Context, n int) error {
	return f.until(ctx, func() bool { return f.Connected() >= n })
}

// AwaitSupplied waits until all agents hold a credential.
func (f *Fleet) AwaitSupplied(ctx context.Context) error {
	return f.until(ctx, func() bool { return f.Dry() == 0 })
}

// lookEvery is how often until looks.
const lookEvery = 10 * time.Millisecond

func (f *Fleet) until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Dry counts the agents without a valid credential.
func (f *Fleet) Dry() int {
	n, now := 0, time.Now()
	for _, a := range f.agents {
		if !a.holding().valid(now) {
			n++
		}
	}
	return n
}

// Troubled describes the agents without a valid credential, some of them.
func (f *Fleet) Troubled() string {
	var b strings.Builder
	now, shown := time.Now(), 0
	for _, a := range f.agents {
		a.mu.Lock()
		if !a.held.valid(now) && shown < 5 {
			shown++
			fmt.Fprintf(&b, "; agent %d: holds %q until %s, connected %v, %d failures in a row", a.index, a.held.ID, a.held.Expires.Format(time.TimeOnly), a.link != nil, a.failures)
		}
		a.mu.Unlock()
	}
	return strings.TrimPrefix(b.String(), "; ")
}

// Forget makes the agents hold nothing, as after a reinstallation.
func (f *Fleet) Forget() {
	for _, a := range f.agents {
		a.mu.Lock()
		a.held = Held{}
		a.mu.Unlock()
	}
}

// Holding gives what each agent holds, in their order.
func (f *Fleet) Holding() []Held {
	all := make([]Held, len(f.agents))
	for i, a := range f.agents {
		all[i] = a.holding()
	}
	return all
}

// Hold makes the agents hold what another fleet of the same agents did.
func (f *Fleet) Hold(all []Held) {
	for i, a := range f.agents {
		a.mu.Lock()
		a.held = all[i]
		a.mu.Unlock()
	}
}

// Close ends all connections and waits for the end of whatever the fleet does.
func (f *Fleet) Close(ctx context.Context) error {
	f.returning.Store(false)
	f.cancel()
	f.graves.open()
	err := f.Disconnect(ctx)
	for _, a := range f.agents {
		a.mu.Lock()
		if a.coming != nil && a.coming.Stop() {
			f.working.Done()
		}
		a.coming = nil
		a.mu.Unlock()
	}
	f.working.Wait()
	return err
}
