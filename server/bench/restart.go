package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// issues counts the STS's credentials by the agent's group.
type issues struct {
	mu     sync.Mutex
	groups map[string]int // by the agent's id
	n      map[int]int
}

func (i *issues) count(c devsts.Issued) {
	for _, tag := range c.Tags {
		if tag.Key == "agent" {
			i.mu.Lock()
			i.n[i.groups[tag.Value]]++
			i.mu.Unlock()
		}
	}
}

func (i *issues) of(group int) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.n[group]
}

func (i *issues) know(s *site.Site) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range s.Agents {
		i.groups[a.ID] = a.Group
	}
}

// watchEvery is how often all agents are looked at for one without a
// credential.
const watchEvery = 100 * time.Millisecond

// restart kills the broker of agents that come back as package client does. A
// twentieth of them has credentials so short that renewals fall due while all
// come back.
func (b *bench) restart(ctx context.Context) (err error) {
	const resting, due, goal = 0, 1, 20
	short := max(1, b.Agents/20)
	issued := &issues{groups: map[string]int{}, n: map[int]int{}}
	s, agents, err := b.build(ctx, "restart", site.Config{Rate: plenty, OnIssue: issued.count, Groups: []site.Group{
		{Tenant: "resting", Agents: b.Agents - short, Lifetime: time.Hour}, {Tenant: "due", Agents: short, Lifetime: b.Lifetime},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	issued.know(s)
	broker, err := b.start(ctx, s, "broker", "127.0.0.1:0", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Kill()) }()
	f, err := fleet.New(fleet.Options{Agents: agents, Brokers: []string{broker.Address}, Return: true, Width: stormWidth})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(f)) }()
	if err := f.ConnectOver(ctx, time.Duration(b.Agents)*connectEvery); err != nil {
		return err
	}
	if err := f.AwaitConnected(ctx, f.Size()); err != nil {
		return err
	}
	if err := f.AwaitSupplied(ctx); err != nil {
		return err
	}
	before, beforeDue, failures := issued.of(resting), f.Stats().Renewals[due], total(f.Stats().Failures)

	stop := f.Watch(watchEvery)
	killed := time.Now()
	if err := broker.Kill(); err != nil {
		return err
	}
	if broker, err = b.start(ctx, s, "broker", broker.Address, false); err != nil {
		return err
	}
	started := time.Now()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := f.AwaitConnected(limited, f.Size()); err != nil {
		return err
	}
	back := time.Now()
	again := &stand{server: broker, fleet: f}
	// Until every short credential has been renewed once more.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(killed.Add(b.Lifetime))):
	}
	worst, stats := stop(), f.Stats()
	did, err := again.traffic(ctx)
	if err != nil {
		return err
	}
	memory, err := broker.Memory()
	if err != nil {
		return err
	}
	b.add("restart", "broker serves again after kill -9", Seconds, started.Sub(killed).Seconds())
	b.add("restart", "all streams back after kill -9", Seconds, back.Sub(killed).Seconds(), atMost(goal))
	b.add("restart", "STS calls for agents with valid credentials", Count, float64(issued.of(resting)-before), must(atMost(0)))
	b.add("restart", "password hashes", Count, did.hashes, must(atMost(0)))
	b.add("restart", "agents without a credential at any moment", Count, float64(worst.Dry), atMost(0))
	b.add("restart", "renewals that fell due meanwhile", Count, float64(stats.Renewals[due]-beforeDue), atLeast(float64(short)))
	b.add("restart", "of these, with less than a third of the life left", Count, float64(stats.Late[due]), atMost(0))
	used, err := broker.CPU()
	if err != nil {
		return err
	}
	b.add("restart", "CPU of the broker until then, a stream", Seconds, used.Seconds()/float64(b.Agents))
	b.add("restart", "connections that failed meanwhile", Count, float64(total(stats.Failures)-failures))
	b.add("restart", "memory of the process at its largest", Bytes, float64(memory.Peak), atMost(mostPeak*(MeasuredCosts.Base+float64(b.Agents)*MeasuredCosts.Stream)))
	return nil
}

const (
	// stormWidth is how many agents of a broker that was killed may be
	// connecting at once. More would wait for this process, which plays them
	// all, and not for the broker.
	stormWidth = 512
	// connectEvery is how far apart agents connect where that is not measured.
	connectEvery = time.Millisecond
	// mostPeak is how much more memory a broker may take in a storm than at
	// rest, by the formula of docs/scale.md.
	mostPeak = 1.5
)

func total(counts map[string]int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// running is a set of brokers with what ends them.
type running []*process.Process

func (r running) kill() error {
	var errs []error
	for _, p := range r {
		if p != nil {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}
