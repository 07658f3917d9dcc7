package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/site"
)

// issue connects agents that have nothing.
func (b *bench) issue(ctx context.Context) error {
	s, err := b.broker(ctx, false)
	if err != nil {
		return err
	}
	if err := s.disconnectAll(ctx); err != nil {
		return err
	}
	s.fleet.Forget()
	before, err := s.traffic(ctx)
	if err != nil {
		return err
	}
	wave := s.fleet.Expect(fleet.Supplied, true)
	began := time.Now()
	var took time.Duration
	cost, err := s.cost(ctx, b.profiled(ctx, s, "issue", func() error {
		if err := s.fleet.Connect(ctx, s.fleet.Size()); err != nil {
			return err
		}
		err := wave.Wait(ctx)
		took = time.Since(began)
		return err
	}))
	if err != nil {
		return err
	}
	after, err := s.traffic(ctx)
	if err != nil {
		return err
	}
	n := float64(s.fleet.Size())
	b.add("issue", "CPU a connection with its first credential", Seconds, cost.Seconds()/n)
	b.add("issue", "credentials a second", Rate, n/took.Seconds())
	b.spread("issue", "first credential", wave.Spread(), fleet.Spread{})
	b.add("issue", "STS calls", Count, after.sts-before.sts)
	b.add("issue", "password hashes", Count, after.hashes-before.hashes)
	b.add("issue", "audit records", Count, after.records-before.records)
	return nil
}

// hold measures what streams take in memory: a process with all of them, less
// one that has just been started. The broker has issued to each.
func (b *bench) hold(ctx context.Context) error {
	const goal, mostHeld, heldOf = 1.1, 1.1 * (1 << 30), 18000
	if err := b.leave(&b.stoker); err != nil {
		return err
	}
	s, err := b.broker(ctx, false)
	if err != nil {
		return err
	}
	s.fleet.Forget()
	each, all, err := b.grow(ctx, s)
	if err != nil {
		return err
	}
	if err := b.heap(ctx, s, "hold"); err != nil {
		return err
	}
	idle, err := b.idle(ctx, s)
	if err != nil {
		return err
	}
	if err := s.disconnectAll(ctx); err != nil {
		return err
	}
	p, err := b.plain(ctx)
	if err != nil {
		return err
	}
	bareEach, bareAll, err := b.grow(ctx, p)
	if err != nil {
		return err
	}
	if err := b.heap(ctx, p, "hold-bare"); err != nil {
		return err
	}
	if err := p.disconnectAll(ctx); err != nil {
		return err
	}
	b.report.add(Measure{
		Mode: "hold", Agents: b.Agents, Name: "memory a stream, resident after GC", Unit: Bytes,
		Stoker: each, Bare: bareValue(bareEach), Goal: ratioAtMost(goal),
	})
	whole := Measure{Mode: "hold", Agents: b.Agents, Name: "memory of the process, resident after GC", Unit: Bytes, Stoker: all, Bare: bareValue(bareAll)}
	if b.Agents >= heldOf {
		whole.Goal = atMost(mostHeld)
	}
	b.report.add(whole)
	b.add("hold", "processor at rest, heartbeats included, of a core", Share, idle)
	return nil
}

// heap writes what a server has on its heap, if profiles are wanted.
func (b *bench) heap(ctx context.Context, s *stand, name string) error {
	if b.Profiles == "" {
		return nil
	}
	_, err := s.server.Ask(ctx, "heap-profile "+filepath.Join(b.Profiles, name+".heap.pprof"))
	return err
}

// idleFor is how long a server at rest is watched: every stream has a
// heartbeat in thrice as long.
const idleFor = 10 * time.Second

// idle is the share of a core that a server uses whose streams are at rest.
func (b *bench) idle(ctx context.Context, s *stand) (share float64, err error) {
	before, err := s.server.CPU()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.profiled(ctx, s, "hold", func() error { return wait(ctx, idleFor) })(); err != nil {
		return 0, err
	}
	after, err := s.server.CPU()
	return float64(after-before) / float64(time.Since(began)), err
}

// grow connects all agents of a server that has just been started, and gives
// the memory of a stream, and of the whole.
func (b *bench) grow(ctx context.Context, s *stand) (each, all float64, err error) {
	var sizes []float64
	for _, n := range []int{0, s.fleet.Size()} {
		if err := s.fleet.Connect(ctx, n); err != nil {
			return 0, 0, err
		}
		if err := s.fleet.AwaitConnected(ctx, n); err != nil {
			return 0, 0, err
		}
		if err := s.calm(ctx); err != nil {
			return 0, 0, err
		}
		m, said, err := s.resident(ctx)
		if err != nil {
			return 0, 0, err
		}
		sizes = append(sizes, float64(m.Resident))
		b.say("%d streams: %d bytes resident; %s", n, m.Resident, said)
	}
	return (sizes[1] - sizes[0]) / float64(s.fleet.Size()), sizes[1], nil
}

// storm has all agents reconnect, with their tokens and what they hold.
func (b *bench) storm(ctx context.Context) error {
	const goal = 1.35
	s, err := b.broker(ctx, false)
	if err != nil {
		return err
	}
	p, err := b.plain(ctx)
	if err != nil {
		return err
	}
	if s.fleet.Dry() > 0 {
		if err := s.connectAll(ctx); err != nil {
			return err
		}
		if err := s.fleet.AwaitSupplied(ctx); err != nil {
			return err
		}
	}
	// The agents of both are this process's, whose descriptors are for one of
	// them at a time.
	if err := s.disconnectAll(ctx); err != nil {
		return err
	}
	before, err := s.traffic(ctx)
	if err != nil {
		return err
	}
	broker, bare := &side{at: s}, &side{at: p}
	for round := range b.Rounds {
		for _, one := range []*side{bare, broker} {
			cost, took, times, err := b.reconnect(ctx, one.at, fmt.Sprintf("storm-%d", round))
			if err != nil {
				return err
			}
			one.costs, one.rates, one.spread = append(one.costs, cost), append(one.rates, float64(one.at.fleet.Size())/took.Seconds()), times
		}
	}
	after, err := s.traffic(ctx)
	if err != nil {
		return err
	}
	b.costs("storm", "CPU a connection: login by token, resume, first message", broker, bare, goal)
	b.report.add(Measure{Mode: "storm", Agents: b.Agents, Name: "connections a second, with the agents on the same cores", Unit: Rate, Stoker: median(broker.rates), Bare: bareValue(median(bare.rates))})
	b.spread("storm", "first message", broker.spread, bare.spread)
	b.add("storm", "STS calls", Count, after.sts-before.sts, atMost(0))
	b.add("storm", "password hashes", Count, after.hashes-before.hashes, atMost(0))
	return s.connectAll(ctx)
}

// reconnect disconnects all agents and connects them again.
func (b *bench) reconnect(ctx context.Context, s *stand, name string) (each float64, took time.Duration, times fleet.Spread, err error) {
	if err := s.disconnectAll(ctx); err != nil {
		return 0, 0, fleet.Spread{}, err
	}
	wave := s.fleet.Expect(fleet.Welcomed, true)
	cost, err := s.cost(ctx, b.profiled(ctx, s, name, func() error {
		began := time.Now()
		if err := s.fleet.Connect(ctx, s.fleet.Size()); err != nil {
			return err
		}
		err := wave.Wait(ctx)
		took = time.Since(began)
		return err
	}))
	if err != nil {
		return 0, 0, fleet.Spread{}, err
	}
	times = wave.Spread()
	return cost.Seconds() / float64(s.fleet.Size()), took, times, s.disconnectAll(ctx)
}

// unary calls GetCredentials while the broker has the credentials in memory and
// all agents are connected, to either server in turn: how often garbage is
// collected, and what that takes, goes by what the streams keep alive.
func (b *bench) unary(ctx context.Context) error {
	const goal, callers, calls = 2.0, 64, 100_000
	s, err := b.broker(ctx, false)
	if err != nil {
		return err
	}
	p, err := b.plain(ctx)
	if err != nil {
		return err
	}
	n := min(callers, b.Agents)
	broker, bare := &side{at: s}, &side{at: p}
	for _, one := range []*side{bare, broker} {
		if err := errors.Join(s.disconnectAll(ctx), p.disconnectAll(ctx)); err != nil {
			return err
		}
		if err := one.at.connectAll(ctx); err != nil {
			return err
		}
		// So that who resumed what the broker did not know has a credential that
		// it knows.
		if _, err := one.at.fleet.Call(ctx, n, 4*n); err != nil {
			return err
		}
		for round := range b.Rounds {
			var done fleet.Calls
			cost, err := one.at.cost(ctx, b.profiled(ctx, one.at, fmt.Sprintf("unary-%d", round), func() (err error) {
				done, err = one.at.fleet.Call(ctx, n, calls)
				return err
			}))
			if err != nil {
				return err
			}
			one.costs, one.spread = append(one.costs, cost.Seconds()/float64(done.Made)), done.Spread
		}
	}
	b.costs("unary", "CPU a warm GetCredentials", broker, bare, goal)
	b.spread("unary", "answer", broker.spread, bare.spread)
	return nil
}

// push renews all credentials at once, by changing what their grant allows.
func (b *bench) push(ctx context.Context) error {
	const goal = 1.35
	s, err := b.broker(ctx, true)
	if err != nil {
		return err
	}
	p, err := b.plain(ctx)
	if err != nil {
		return err
	}
	admin, err := grpc.NewClient(s.server.Address, grpc.WithTransportCredentials(credentials.NewTLS(operatorTLS(b.site))))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	grants := stokerv1.NewGrantServiceClient(admin)
	access := []stokerv1.Access{stokerv1.Access_ACCESS_MAINTAIN, stokerv1.Access_ACCESS_BACKUP}
	change := func(round int) error {
		_, err := grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
			Grant:      &stokerv1.Grant{Tenant: tenant, Name: site.Grant, Access: access[round%2]},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
		})
		return err
	}
	push := func(int) error { _, err := p.server.Ask(ctx, "push"); return err }
	broker, bare := &side{at: s}, &side{at: p}
	for _, one := range []struct {
		*side
		begin func(int) error
	}{{bare, push}, {broker, change}} {
		if err := one.at.connectAll(ctx); err != nil {
			return err
		}
		// An even number: in the end the grant is as it was. The first round
		// warms up.
		for round := range 2 * ((b.Rounds + 2) / 2) {
			wave := one.at.fleet.Expect(fleet.Supplied, false)
			cost, err := one.at.cost(ctx, b.profiled(ctx, one.at, fmt.Sprintf("push-%d", round), func() error {
				if err := one.begin(round); err != nil {
					return err
				}
				return wave.Wait(ctx)
			}))
			if err != nil {
				return err
			}
			if round > 0 {
				one.costs, one.spread = append(one.costs, cost.Seconds()/float64(one.at.fleet.Size())), wave.Spread()
			}
		}
		if one.at == p {
			if err := p.disconnectAll(ctx); err != nil {
				return err
			}
		}
	}
	b.costs("push", "CPU a renewal: decide, audit, push, acknowledge", broker, bare, goal)
	b.spread("push", "renewal", broker.spread, bare.spread)
	return nil
}

// revoke disables the tenant of all agents.
func (b *bench) revoke(ctx context.Context) error {
	s, err := b.broker(ctx, true)
	if err != nil {
		return err
	}
	if err := s.disconnectAll(ctx); err != nil {
		return err
	}
	bare, bareCost, err := b.endBare(ctx)
	if err != nil {
		return err
	}
	if err := s.connectAll(ctx); err != nil {
		return err
	}
	admin, err := grpc.NewClient(s.server.Address, grpc.WithTransportCredentials(credentials.NewTLS(operatorTLS(b.site))))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	tenants := stokerv1.NewTenantServiceClient(admin)
	disable := func(disabled bool) error {
		_, err := tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
			Tenant: &stokerv1.Tenant{Name: tenant, Disabled: disabled}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
		})
		return err
	}
	// The operator's connection is made before.
	if err := disable(false); err != nil {
		return err
	}
	wave := s.fleet.Expect(fleet.Ended, false)
	began := time.Now()
	var acknowledged time.Duration
	cost, err := s.cost(ctx, b.profiled(ctx, s, "revoke", func() error {
		if err := disable(true); err != nil {
			return err
		}
		acknowledged = time.Since(began)
		return wave.Wait(ctx)
	}))
	if err != nil {
		return err
	}
	last := wave.Spread()
	for _, m := range []Measure{
		{Name: "CPU a stream", Stoker: cost.Seconds() / float64(s.fleet.Size()), Bare: bareValue(bareCost)},
		{Name: "acknowledged to the operator", Stoker: acknowledged.Seconds()},
		{Name: "stream told, p50", Stoker: last.P50.Seconds(), Bare: bareValue(bare.P50.Seconds())},
		{Name: "stream told, last", Stoker: last.Last.Seconds(), Bare: bareValue(bare.Last.Seconds()), Goal: atMost(1)},
	} {
		m.Mode, m.Agents, m.Unit = "revoke", b.Agents, Seconds
		b.report.add(m)
	}
	return disable(false)
}

// endBare has bare grpc-go end all streams with a status that says why. It
// gives when the agents learned of it, and the processor time of a stream.
func (b *bench) endBare(ctx context.Context) (told fleet.Spread, each float64, err error) {
	p, err := b.plain(ctx)
	if err != nil {
		return told, 0, err
	}
	if err := p.connectAll(ctx); err != nil {
		return told, 0, err
	}
	wave := p.fleet.Expect(fleet.Ended, false)
	cost, err := p.cost(ctx, func() error {
		if _, err := p.server.Ask(ctx, "end"); err != nil {
			return err
		}
		return wave.Wait(ctx)
	})
	if err != nil {
		return told, 0, err
	}
	return wave.Spread(), cost.Seconds() / float64(p.fleet.Size()), p.disconnectAll(ctx)
}

// add adds a value that there is nothing to compare with.
func (b *bench) add(mode, name string, unit Unit, value float64, goal ...*Goal) {
	m := Measure{Mode: mode, Name: name, Agents: b.Agents, Unit: unit, Stoker: value}
	if len(goal) > 0 {
		m.Goal = goal[0]
	}
	b.report.add(m)
}

// side is what was measured of the broker, or of bare grpc-go: the processor
// time of each and how many a second, by round, and the times of the last round.
type side struct {
	at           *stand
	costs, rates []float64
	spread       fleet.Spread
}

// costs reports the processor time of each on both sides.
func (b *bench) costs(mode, name string, broker, bare *side, goal float64) {
	b.report.add(Measure{
		Mode: mode, Agents: b.Agents, Name: name, Unit: Seconds,
		Stoker: median(broker.costs), Bare: bareValue(median(bare.costs)), Goal: ratioAtMost(goal),
	})
}

// spread adds the times of an event; other is bare grpc-go's.
func (b *bench) spread(mode, name string, s, other fleet.Spread) {
	for _, one := range []struct {
		name     string
		at, bare time.Duration
	}{{"p50", s.P50, other.P50}, {"p99", s.P99, other.P99}, {"last", s.Last, other.Last}} {
		m := Measure{Mode: mode, Name: name + ", " + one.name, Agents: b.Agents, Unit: Seconds, Stoker: one.at.Seconds()}
		if one.bare > 0 {
			m.Bare = bareValue(one.bare.Seconds())
		}
		b.report.add(m)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
