package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// The groups of soak: the calm ones must be supplied whatever happens to the
// others' tenant.
const (
	calmGroup = iota
	troubledGroup
)

const (
	// soakPerMinute is how many agents soak has for each minute of a lifetime:
	// few enough for a machine that is busy with other things.
	soakPerMinute = 1000
	// ageing is the part of soak in which the broker is not restarted, so that
	// whatever grows in it is seen.
	ageing = 0.6
	// halfOpen is how long a half-open connection stays, and givenUp how long
	// the broker takes to give it up, by a heartbeat that nobody acknowledges:
	// half a minute until that is sent, and twenty seconds.
	halfOpen, givenUp = 90 * time.Second, 60 * time.Second
	// mostDescriptors and mostGoroutines are what counts as no growth: the idle
	// connections to the STS come and go, up to 64 of them with two goroutines
	// each. Whatever leaks with each stream or event is many times as much.
	mostDescriptors, mostGoroutines = 80, 200
)

// soak mixes everything that happens to a broker in a year: STS faults short
// enough to bridge, changes, revocations, lost and half-open connections, agents
// that do not read, wrong clocks, renewed certificates; and then restarts and
// crashes as well. In the end the whole history is checked.
func (b *bench) soak(ctx context.Context) (err error) {
	n := min(b.Agents, max(2, int(soakPerMinute*b.Lifetime.Minutes())))
	troubled := max(1, n/10)
	told := &chronicle{}
	s, agents, err := b.build(ctx, "soak", site.Config{Rate: plenty, OnIssue: told.issued, Groups: []site.Group{
		{Tenant: "calm", Agents: n - troubled, Lifetime: b.Lifetime}, {Tenant: "troubled", Agents: troubled, Lifetime: b.Lifetime},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	told.begin(s)
	t := &trouble{bench: b, site: s, told: told}
	if t.broker, err = b.start(ctx, s, "broker", "127.0.0.1:0", false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.broker.Kill()) }()
	if t.fleet, err = fleet.New(fleet.Options{Agents: agents, Brokers: []string{t.broker.Address}, Return: true, Journal: told}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(t.fleet)) }()
	if t.admin, err = grpc.NewClient(t.broker.Address, grpc.WithTransportCredentials(credentials.NewTLS(operatorTLS(s)))); err != nil {
		return err
	}
	defer func() { _ = t.admin.Close() }()
	if err := t.fleet.ConnectOver(ctx, b.Lifetime/2); err != nil {
		return err
	}
	first, last, calm, err := t.age(ctx)
	if err != nil {
		return err
	}
	if err := t.misfortunes(ctx, time.Duration((1-ageing)*float64(b.Soak)), true); err != nil {
		return err
	}
	if err := t.heal(ctx); err != nil {
		return err
	}
	stats := t.fleet.Stats()
	if err := errors.Join(closeFleet(t.fleet), stop(t.broker)); err != nil {
		return err
	}
	violations, records, intact, err := told.judge(ctx, s)
	if err != nil {
		return err
	}
	for _, v := range violations[:min(len(violations), 20)] {
		b.say("soak: VIOLATED: %s", v)
	}
	slowest, ended := told.history.SlowestEnd()
	add := func(name string, unit Unit, value float64, goal *Goal) {
		b.report.add(Measure{Mode: "soak", Agents: n, Name: name, Unit: unit, Stoker: value, Goal: goal})
	}
	for _, kind := range misfortunes {
		add("events: "+kind.what, Count, float64(t.events[kind.what]), nil)
	}
	add("credentials received", Count, float64(stats.Credentials), nil)
	add("streams", Count, float64(len(told.history.Streams)), nil)
	add("breaches of what must always hold, in the whole history", Count, float64(len(violations)), must(atMost(0)))
	add("faults in the audit trail", Count, float64(intact), must(atMost(0)))
	add("audit records", Count, float64(records), nil)
	add("credentials out of order on a stream", Count, float64(stats.Disorder), must(atMost(0)))
	add("streams that a cut-off ended", Count, float64(ended), nil)
	add("the slowest of them told after the acknowledgement", Seconds, slowest.Seconds(), atMost(1))
	add("renewals while the broker ran and STS answered, agents that nothing was done to", Count, float64(calm.renewals), nil)
	add("least share of life at one of these", Share, calm.inReach, atLeast(1.0/3))
	add("the same, renewals that STS faults held up included", Share, calm.all, nil)
	add("growth of the live heap of a broker that ran", Share, float64(last.heap)/float64(first.heap), must(atMost(1.5)))
	add("growth of its resident memory", Share, float64(last.memory)/float64(first.memory), atMost(1.25))
	add("growth of its goroutines", Count, float64(last.goroutines-first.goroutines), must(atMost(mostGoroutines)))
	add("growth of its descriptors", Count, float64(last.descriptors-first.descriptors), must(atMost(mostDescriptors)))
	return nil
}

// state is what must not grow.
type state struct {
	memory, heap            int64
	goroutines, descriptors int
}

// age has misfortunes happen to a broker that is not restarted, and measures it
// before and after, both times with all agents connected and nothing going on.
// Before the first time each has happened once: what is kept for the next time
// is no growth. calm is how the calm agents were supplied all the while.
func (t *trouble) age(ctx context.Context) (first, last state, calm margin, err error) {
	if err = t.misfortunes(ctx, 0, false); err != nil {
		return first, last, calm, err
	}
	if first, err = t.settled(ctx); err != nil {
		return first, last, calm, err
	}
	if err = t.misfortunes(ctx, time.Duration(ageing*float64(t.Soak)), false); err != nil {
		return first, last, calm, err
	}
	calm = t.told.margin(t.site.Groups[calmGroup].Tenant)
	last, err = t.settled(ctx)
	return first, last, calm, err
}

// settled measures once all are back and half-open connections are given up.
func (t *trouble) settled(ctx context.Context) (state, error) {
	if err := t.heal(ctx); err != nil {
		return state{}, err
	}
	if err := wait(ctx, min(givenUp, t.Soak)); err != nil {
		return state{}, err
	}
	if t.Profiles != "" {
		t.profiles++
		if _, err := t.broker.Ask(ctx, "goroutines "+filepath.Join(t.Profiles, fmt.Sprintf("soak-%d.goroutines.txt", t.profiles))); err != nil {
			return state{}, err
		}
	}
	return t.state(ctx)
}

// state waits until all are connected and supplied and the broker is at rest,
// and measures.
func (t *trouble) state(ctx context.Context) (s state, err error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.fleet.AwaitConnected(limited, t.fleet.Size()); err != nil {
		return s, fmt.Errorf("%d of %d agents are connected: %w", t.fleet.Connected(), t.fleet.Size(), err)
	}
	if err := t.fleet.AwaitSupplied(limited); err != nil {
		return s, fmt.Errorf("%d agents have no credential: %w (%s)", t.fleet.Dry(), err, t.fleet.Troubled())
	}
	at := &stand{server: t.broker, fleet: t.fleet}
	m, detail, err := at.resident(ctx)
	if err != nil {
		return s, err
	}
	s.memory = m.Resident
	if s.descriptors, err = t.broker.Descriptors(); err != nil {
		return s, err
	}
	var spans, stacks, other int
	if _, err := fmt.Sscanf(detail, process.CollectFormat, &s.heap, &spans, &stacks, &other, &s.goroutines); err != nil {
		return s, fmt.Errorf("%q: %w", detail, err)
	}
	return s, nil
}

// heal ends all that is wrong and lets everybody come back.
func (t *trouble) heal(ctx context.Context) error {
	t.site.STS.ClearFaults()
	if _, err := t.broker.Ask(ctx, "clock 0s"); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.fleet.AwaitConnected(limited, t.fleet.Size()); err != nil {
		return fmt.Errorf("%d of %d agents came back: %w", t.fleet.Connected(), t.fleet.Size(), err)
	}
	if err := t.fleet.AwaitSupplied(limited); err != nil {
		return fmt.Errorf("%d agents have no credential: %w (%s)", t.fleet.Dry(), err, t.fleet.Troubled())
	}
	return nil
}
