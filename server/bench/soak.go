package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/bench/internal/fleet"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/bench/internal/site"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// The groups of soak: the calm ones must be supplied whatever happens to the
// others' tenant.
const (
	calmGroup = iota
	troubledGroup
)

// soak mixes everything that happens to a broker in a year: STS faults short
// enough to bridge, changes, revocations, lost connections, crashes.
func (b *bench) soak(ctx context.Context) (err error) {
	n := min(b.Agents, int(issuesPerMinute*b.Lifetime.Minutes()))
	troubled := max(1, n/10)
	s, agents, err := b.build(ctx, "soak", site.Config{Rate: plenty, Groups: []site.Group{
		{Tenant: "calm", Agents: n - troubled, Lifetime: b.Lifetime}, {Tenant: "troubled", Agents: troubled, Lifetime: b.Lifetime},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t := &trouble{bench: b, site: s}
	if t.broker, err = b.start(ctx, s, "broker", "127.0.0.1:0", false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.broker.Kill()) }()
	if t.fleet, err = fleet.New(fleet.Options{Agents: agents, Brokers: []string{t.broker.Address}, Return: true}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFleet(t.fleet)) }()
	if err := t.fleet.ConnectOver(ctx, b.Lifetime/2); err != nil {
		return err
	}
	if err := t.fleet.AwaitSupplied(ctx); err != nil {
		return err
	}
	if t.admin, err = grpc.NewClient(t.broker.Address, grpc.WithTransportCredentials(credentials.NewTLS(operatorTLS(s)))); err != nil {
		return err
	}
	defer func() { _ = t.admin.Close() }()
	if err := t.restart(ctx, true); err != nil { // both ends are measured in a broker that was restarted
		return err
	}
	first, err := t.state(ctx)
	if err != nil {
		return err
	}
	for end := time.Now().Add(b.Soak); time.Now().Before(end); {
		if err := t.happen(ctx); err != nil {
			return err
		}
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	last, err := t.state(ctx)
	if err != nil {
		return err
	}
	b.reportSoak(n, first, last, t)
	return nil
}

func (b *bench) reportSoak(n int, first, last state, t *trouble) {
	stats := t.fleet.Stats()
	add := func(name string, unit Unit, value float64, goal *Goal) {
		b.report.add(Measure{Mode: "soak", Agents: n, Name: name, Unit: unit, Stoker: value, Goal: goal})
	}
	add("events", Count, float64(t.events), nil)
	add("credentials", Count, float64(stats.Credentials), nil)
	add("credentials out of order on a stream", Count, float64(stats.Disorder), atMost(0))
	add("least share of life at a renewal, agents that nothing was done to", Share, stats.Lowest[calmGroup], atLeast(1.0/3))
	add("growth of memory, end to beginning", Share, float64(last.memory)/float64(first.memory), atMost(1.25))
	add("growth of goroutines", Count, float64(last.goroutines-first.goroutines), atMost(50))
	add("growth of descriptors", Count, float64(last.descriptors-first.descriptors), atMost(20))
}

// trouble is what soak does to a broker.
type trouble struct {
	*bench
	site   *site.Site
	broker *process.Process
	fleet  *fleet.Fleet
	admin  *grpc.ClientConn
	events int
}

// state is what must not grow.
type state struct {
	memory                  int64
	goroutines, descriptors int
}

// state waits until all are connected and measures.
func (t *trouble) state(ctx context.Context) (s state, err error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.fleet.AwaitConnected(limited, t.fleet.Size()); err != nil {
		return s, err
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
	var heap, spans, stacks, other int
	if _, err := fmt.Sscanf(detail, process.CollectFormat, &heap, &spans, &stacks, &other, &s.goroutines); err != nil {
		return s, fmt.Errorf("%q: %w", detail, err)
	}
	return s, nil
}

// happen does one thing, and gives the broker a moment.
func (t *trouble) happen(ctx context.Context) error {
	t.events++
	brief := t.Lifetime / 20
	var err error
	switch what := rand.N(100); {
	case what < 3:
		err = t.restart(ctx, rand.N(2) == 0)
	case what < 20:
		err = t.fault(ctx, brief)
	case what < 40:
		err = t.change(ctx)
	case what < 55:
		err = t.disable(ctx, brief)
	case what < 80:
		t.fleet.Drop(1 + rand.N(t.fleet.Size()/50+1))
	default:
		// Nothing happens most of the time.
	}
	if err != nil {
		return err
	}
	return wait(ctx, 200*time.Millisecond)
}

// restart stops the broker, or kills it, and starts it again.
func (t *trouble) restart(ctx context.Context, kills bool) error {
	end := t.broker.Kill
	if !kills {
		end = func() error { return stop(t.broker) }
	}
	if err := end(); err != nil {
		return err
	}
	next, err := t.start(ctx, t.site, "broker", t.broker.Address, false)
	if err != nil {
		return err
	}
	t.broker = next
	return nil
}

// fault makes the STS fail for so short a time that nobody may notice.
func (t *trouble) fault(ctx context.Context, brief time.Duration) error {
	kinds := []devsts.FaultKind{devsts.Throttle, devsts.ServerError, devsts.Unavailable, devsts.Garble, devsts.Drop, devsts.Delay}
	f := devsts.Fault{Kind: kinds[rand.N(len(kinds))], Probability: 0.5}
	if f.Kind == devsts.Delay {
		f.Delay = brief
	}
	if err := t.site.STS.Inject(f); err != nil {
		return err
	}
	defer t.site.STS.ClearFaults()
	return wait(ctx, brief)
}

// change changes what the troubled tenant's grant allows: all are renewed.
func (t *trouble) change(ctx context.Context) error {
	access := []stokerv1.Access{stokerv1.Access_ACCESS_BACKUP, stokerv1.Access_ACCESS_RESTORE, stokerv1.Access_ACCESS_MAINTAIN}
	_, err := stokerv1.NewGrantServiceClient(t.admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "troubled", Name: site.Grant, Access: access[rand.N(len(access))]},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
	}, grpc.WaitForReady(true))
	return err
}

// disable takes everything from the troubled tenant for a while.
func (t *trouble) disable(ctx context.Context, brief time.Duration) error {
	for _, disabled := range []bool{true, false} {
		if _, err := stokerv1.NewTenantServiceClient(t.admin).UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
			Tenant: &stokerv1.Tenant{Name: "troubled", Disabled: disabled}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
		}, grpc.WaitForReady(true)); err != nil {
			return err
		}
		if err := wait(ctx, brief); err != nil {
			return err
		}
	}
	return nil
}

// settle lets everybody come back, in a broker that has just been started as
// that of the beginning was.
func (t *trouble) settle(ctx context.Context) error {
	t.site.STS.ClearFaults()
	if err := t.restart(ctx, true); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.fleet.AwaitConnected(limited, t.fleet.Size()); err != nil {
		return err
	}
	return t.fleet.AwaitSupplied(limited)
}
