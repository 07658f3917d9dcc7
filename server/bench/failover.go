package bench

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/bench/internal/database"
	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// The replicas of failover, and the most agents that they have together: three
// brokers, their database and the agents share the machine.
const (
	replicas      = 3
	mostFailovers = 3000
	// drainShare is how many drain windows a lifetime has. In production there
	// are more than a hundred; with fewer, agents that are told to wait for a
	// window are renewed late.
	drainShare = 12
	// startShare is how much longer than the drain window it may take until all
	// are back: one connects at its very end. evenly is how far apart the
	// replicas' loads may be then.
	startShare, evenly = 0.2, 0.8
)

// failover restarts replicas on one PostgreSQL one after the other, and then
// kills one.
func (b *bench) failover(ctx context.Context) error {
	return b.withPostgres(ctx, "failover", func(dsn string) error { return b.failoverOn(ctx, dsn) })
}

// withPostgres measures with the database that was named, or with one of its
// own; where there is none it is said that nothing was measured.
func (b *bench) withPostgres(ctx context.Context, mode string, measure func(dsn string) error) (err error) {
	if b.Postgres != "" {
		return measure(b.Postgres)
	}
	// Not below our own directory: its parents may be closed to the account
	// that the server runs as.
	dir, err := os.MkdirTemp("", "stoker-bench-postgres-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := database.Start(ctx, dir)
	if errors.Is(err, database.ErrNone) {
		b.say("%s: NOT MEASURED: %v", mode, err)
		b.report.skip(mode, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	return measure(db.DSN)
}

func (b *bench) failoverOn(ctx context.Context, dsn string) (err error) {
	n, drain := min(b.Agents, mostFailovers), max(time.Second, b.Lifetime/drainShare)
	s, agents, err := b.build(ctx, "failover", site.Config{
		Rate: plenty, Postgres: dsn, Drain: drain, Groups: []site.Group{{Tenant: tenant, Agents: n, Lifetime: b.Lifetime}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	brokers, addresses, err := b.startAll(ctx, s, replicas)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, brokers.kill()) }()
	f, err := fleet.New(fleet.Options{Agents: agents, Brokers: addresses, Return: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(f)) }()
	if err := f.ConnectOver(ctx, b.Lifetime/6); err != nil {
		return err
	}
	if err := f.AwaitSupplied(ctx); err != nil {
		return err
	}
	watched := f.Watch(watchEvery)
	began, last := time.Now(), time.Time{}
	for i := range brokers {
		b.say("failover: restarting replica %d; the replicas have %v", i, f.Loads())
		last = time.Now()
		if err := stop(brokers[i]); err != nil {
			return err
		}
		if brokers[i], err = b.start(ctx, s, replica(i), addresses[i], false); err != nil {
			return err
		}
		if err := f.AwaitConnected(ctx, n); err != nil {
			return err
		}
	}
	rolled, spread, loads := time.Since(began), time.Since(last), f.Loads()
	b.say("failover: after the rolling restart the replicas have %v", loads)
	b.say("failover: killing replica 0")
	killed := time.Now()
	if err := brokers[0].Kill(); err != nil {
		return err
	}
	if err := wait(ctx, time.Second); err != nil { // until the agents have noticed
		return err
	}
	if err := f.AwaitConnected(ctx, n); err != nil {
		return err
	}
	back := time.Since(killed)
	worst, stats := watched(), f.Stats()
	add := func(name string, unit Unit, value float64, goal *Goal) {
		b.report.add(Measure{Mode: "failover", Agents: n, Name: name, Unit: unit, Stoker: value, Goal: goal})
	}
	add("rolling restart of three replicas", Seconds, rolled.Seconds(), nil)
	add("drain windows from the last replica's leave until all are back", Share, float64(spread)/float64(drain), atMost(1+startShare))
	add("emptiest replica to fullest by then", Share, float64(slices.Min(loads))/float64(max(1, slices.Max(loads))), atLeast(evenly))
	add("all streams of a killed replica back", Seconds, back.Seconds(), atMost(20))
	add("agents without a credential at any moment", Count, float64(worst.Dry), atMost(0))
	add("renewals with less than a third of the life left", Count, float64(stats.Late[0]), nil)
	add("credentials out of order", Count, float64(stats.Disorder), must(atMost(0)))
	return nil
}
