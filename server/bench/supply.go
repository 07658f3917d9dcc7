package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

const (
	// fleetReplicas are the brokers of fleet.
	fleetReplicas = 5
	// renewedPerSecond is how many renewals a second this sort of machine makes
	// in the long run, with brokers, STS, database and agents all on two cores.
	renewedPerSecond = 300
	// heldOf and mostHeld are the goal for one broker.
	heldOf, mostHeld = 18_000, 1.1 * (1 << 30)
)

// supply keeps all agents supplied by one broker for a whole lifetime, in which
// an hour is compressed.
func (b *bench) supply(ctx context.Context) error {
	return b.supplyBy(ctx, "supply", 1, min(b.Agents, mostInProcess), "")
}

// fleet does the same with five brokers on one PostgreSQL.
func (b *bench) fleet(ctx context.Context) error {
	return b.withPostgres(ctx, "fleet", func(dsn string) error {
		return b.supplyBy(ctx, "fleet", fleetReplicas, b.Agents, dsn)
	})
}

// supplied is what was seen of agents that were supplied.
type supplied struct {
	mode           string
	agents         int
	lifetime, took time.Duration
	report         crowdReport
	brokers        []*process.Process
	crowd          crowd
	// cpu is the brokers' processor time while all were connected.
	cpu  time.Duration
	over time.Duration
	sts  site.Load
}

func (b *bench) supplyBy(ctx context.Context, mode string, replicas, n int, dsn string) (err error) {
	life := max(b.Lifetime, time.Duration(float64(n)/(meanAge*renewedPerSecond)*float64(time.Second)).Round(time.Second))
	b.say("%s: enrolling %d agents, whose credentials live %v", mode, n, life)
	s, _, err := b.build(ctx, mode, site.Config{Rate: plenty, Postgres: dsn, Groups: []site.Group{{Tenant: tenant, Agents: n, Lifetime: life}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	brokers, addresses, err := b.startAll(ctx, s, replicas)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, brokers.kill()) }()
	seen := supplied{mode: mode, agents: n, lifetime: life, brokers: brokers}
	if seen.crowd, err = b.gatherCrowd(ctx, s, addresses); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running(seen.crowd).kill()) }()
	if err := b.keepSupplied(ctx, s, &seen); err != nil {
		return err
	}
	return b.reportSupplied(ctx, seen)
}

// keepSupplied connects all within one cycle of renewals, so that these are
// spread as in a fleet that has run for days, and watches for a lifetime.
func (b *bench) keepSupplied(ctx context.Context, s *site.Site, seen *supplied) error {
	began := time.Now()
	b.say("%s: connecting within %v", seen.mode, time.Duration(meanAge*float64(seen.lifetime)).Round(time.Second))
	if err := seen.crowd.tell(ctx, "connect "+time.Duration(meanAge*float64(seen.lifetime)).String()); err != nil {
		return err
	}
	if err := seen.crowd.tell(ctx, "watch"); err != nil {
		return err
	}
	b.say("%s: all are supplied after %v; watching for %v", seen.mode, time.Since(began).Round(time.Second), seen.lifetime)
	before, err := processorTime(seen.brokers)
	if err != nil {
		return err
	}
	s.STS.Load()
	watching := time.Now()
	if err := wait(ctx, seen.lifetime); err != nil {
		return err
	}
	after, err := processorTime(seen.brokers)
	if err != nil {
		return err
	}
	seen.cpu, seen.over, seen.sts = after-before, time.Since(watching), s.STS.Load()
	seen.took = time.Since(began)
	seen.report, err = seen.crowd.report(ctx)
	return err
}

func processorTime(processes []*process.Process) (sum time.Duration, err error) {
	for _, p := range processes {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func (b *bench) reportSupplied(ctx context.Context, seen supplied) error {
	add := func(name string, unit Unit, value float64, goal *Goal) {
		b.report.add(Measure{Mode: seen.mode, Agents: seen.agents, Name: name, Unit: unit, Stoker: value, Goal: goal})
	}
	largest, sum := int64(0), int64(0)
	for _, p := range seen.brokers {
		m, err := p.Memory()
		if err != nil {
			return err
		}
		largest, sum = max(largest, m.Resident), sum+m.Resident
	}
	agents, err := resident(seen.crowd)
	if err != nil {
		return err
	}
	r := seen.report
	renewals := float64(seen.sts.Calls)
	add("lifetime of a credential, an hour compressed", Seconds, seen.lifetime.Seconds(), nil)
	add("supplied for", Seconds, seen.took.Seconds(), nil)
	add("streams at the end", Count, float64(r.Connected), atLeast(float64(seen.agents)))
	add("agents without a credential at any moment", Count, float64(r.Worst.Dry), atMost(0))
	add("least share of its life that any credential had", Share, r.Worst.Least, atLeast(1.0/3))
	add("credentials out of order", Count, float64(r.Stats.Disorder), must(atMost(0)))
	add("renewals a second", Rate, renewals/seen.over.Seconds(), nil)
	add("CPU a renewal: STS, audit, push, and heartbeats", Seconds, seen.cpu.Seconds()/max(1, renewals), nil)
	whole := Measure{Mode: seen.mode, Agents: seen.agents, Name: "memory of the largest broker as it runs", Unit: Bytes, Stoker: float64(largest)}
	b.report.add(whole)
	add("memory of all brokers", Bytes, float64(sum), nil)
	add("memory of all agents", Bytes, float64(agents), nil)
	if len(r.Loads) > 1 {
		add("emptiest replica to fullest", Share, float64(slices.Min(r.Loads))/float64(max(1, slices.Max(r.Loads))), nil)
	}
	// What is not in use is freed, as the goal is for memory after GC.
	held := int64(0)
	for _, p := range seen.brokers {
		m, _, err := (&stand{server: p}).resident(ctx)
		if err != nil {
			return err
		}
		held = max(held, m.Resident)
	}
	after := Measure{Mode: seen.mode, Agents: seen.agents, Name: "memory of the largest broker, after GC", Unit: Bytes, Stoker: float64(held)}
	if len(seen.brokers) == 1 && seen.agents >= heldOf {
		after.Goal = atMost(mostHeld)
	}
	b.report.add(after)
	return nil
}
