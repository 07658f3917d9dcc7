package bench

import (
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// Costs are what was measured, on which a plan rests: see docs/scale.md. They
// are for one core.
type Costs struct {
	// Stream is the memory of an open stream in bytes, Base that of a broker
	// without any.
	Stream, Base float64
	// Connection, Renewal and Heartbeat are the processor time in seconds that a
	// broker needs for one: a reconnect with a token, a renewal with its STS
	// call, a heartbeat.
	Connection, Renewal, Heartbeat float64
	// Hash is a login with a password.
	Hash float64
	// Records is how many audit records a second one database makes durable,
	// and Record the bytes that one takes there.
	Records, Record float64
	// Quota is the STS calls a second of one account and region.
	Quota float64
	// Beat is the seconds between two heartbeats.
	Beat float64
}

// MeasuredCosts are those of docs/scale.md.
var MeasuredCosts = Costs{
	Stream: 60 << 10, Base: 60 << 20,
	Connection: 1.1e-3, Renewal: 1.2e-3, Heartbeat: 25e-6, Hash: 26e-3,
	Records: 10000, Record: 1200, Quota: 600, Beat: 30,
}

// Situation is what capacity is planned for.
type Situation struct {
	// Agents hold one stream and one grant each, with credentials of this
	// lifetime.
	Agents   int
	Lifetime time.Duration
	// Outage is how long STS may be away at once. Back is within how long all
	// are to be connected again after all brokers were lost.
	Outage, Back time.Duration
	// Broker bounds one broker: memory in bytes, cores, and streams, which the
	// limit of descriptors sets.
	Memory  float64
	Cores   float64
	Streams int
	// QuotaShare is how much of the STS quota the brokers may use.
	QuotaShare float64
}

// Plan is what a situation takes.
type Plan struct {
	Situation
	// Renewals a second on average.
	Renewals float64
	// Accounts is how many accounts or regions the STS quota makes necessary:
	// each has a quota of its own, and a tenant belongs to one.
	Accounts int
	// Rate is the budget to configure for each account, for all brokers
	// together.
	Rate float64
	// Brokers is how many are needed, and Why what decides that.
	Brokers int
	Why     string
	// Memory and Cores are those of one broker: at rest, and the cores while
	// all reconnect.
	BrokerMemory, BrokerCores, StormCores float64
	// RecordsPerSecond and GrowthPerDay are the database's: audit records, and
	// the bytes of them.
	RecordsPerSecond, GrowthPerDay float64
	// Lost is how many are without a credential at the end of the outage
	// whatever is done, and Recovery how long until all are supplied again.
	Lost     int
	Recovery time.Duration
	// Simulated is the same as it came out of a simulation.
	Simulated Outcome
	// Problems is what cannot be had by more of the same.
	Problems []string
}

// check refuses situations that nothing can be said about.
func (s Situation) check() error {
	switch {
	case s.Agents < 1 || s.Agents > 1e8:
		return fmt.Errorf("%d agents: from 1 to 100 million", s.Agents)
	case s.Lifetime < 15*time.Minute || s.Lifetime > 36*time.Hour:
		return fmt.Errorf("a lifetime of %s: STS issues from 15m to 36h", s.Lifetime)
	case s.Outage < 0 || s.Back <= 0 || s.Memory <= 0 || s.Cores <= 0 || s.Streams < 1:
		return errors.New("times, memory, cores and streams must be above zero")
	case !(s.QuotaShare > 0 && s.QuotaShare <= 1):
		return errors.New("the share of the quota is above 0 and at most 1")
	}
	return nil
}

// MakePlan computes what the situation takes.
func MakePlan(s Situation, c Costs) (Plan, error) {
	if err := s.check(); err != nil {
		return Plan{}, err
	}
	p := Plan{Situation: s}
	n, life := float64(s.Agents), s.Lifetime.Seconds()
	p.Renewals = n / (meanAge * life)
	usable := c.Quota * s.QuotaShare
	// Each account must carry its renewals and catch up after an outage
	// before what it then issued is due again.
	p.Accounts = max(1, int(math.Ceil(p.Renewals/(usable*busy))))
	p.Rate = usable
	p.brokers(c, n)
	each := n / float64(p.Brokers)
	p.BrokerMemory = c.Base + each*c.Stream
	p.BrokerCores = each * (c.Renewal/(meanAge*life) + c.Heartbeat/c.Beat)
	p.StormCores = p.BrokerCores + each*c.Connection/s.Back.Seconds()
	// An issue each, and a session each twelve hours.
	p.RecordsPerSecond = p.Renewals + n/(12*3600)
	p.GrowthPerDay = p.RecordsPerSecond * c.Record * 86400
	p.Lost = int(n * lostShare(s.Outage.Seconds()/life))
	due := n * dueShare(s.Outage.Seconds()/life)
	p.Recovery = recoveryTime(due/float64(p.Accounts), n/float64(p.Accounts), p.Rate, p.Renewals/float64(p.Accounts))
	p.Simulated = simulate(s.Agents, s.Lifetime, s.Outage, p.Rate*float64(p.Accounts))
	p.complain(c)
	return p, nil
}

// busy is how much of a budget renewals may take in the long run: the rest is
// for newcomers and for catching up.
const busy = 0.5

// brokers says how many are needed, and why.
func (p *Plan) brokers(c Costs, n float64) {
	perBroker, why := float64(p.Streams), "descriptors"
	if fits := (p.Memory - c.Base) / c.Stream; fits < perBroker {
		perBroker, why = fits, "memory"
	}
	load := c.Renewal/(meanAge*p.Lifetime.Seconds()) + c.Heartbeat/c.Beat
	if fits := p.Cores / (load + c.Connection/p.Back.Seconds()); fits < perBroker {
		perBroker, why = fits, "processor time while all reconnect"
	}
	p.Brokers, p.Why = max(1, int(math.Ceil(n/max(1, perBroker)))), why
	if p.Brokers > 1 {
		p.Brokers++ // one may be away
	}
}

// complain notes what more brokers do not solve.
func (p *Plan) complain(c Costs) {
	note := func(format string, args ...any) { p.Problems = append(p.Problems, fmt.Sprintf(format, args...)) }
	if p.Accounts > 1 {
		note("the STS quota is the limit: spread the tenants over %d accounts or regions, or let credentials live longer", p.Accounts)
	}
	if p.RecordsPerSecond > c.Records*busy {
		note("one database makes %.0f audit records a second durable, and %.0f are needed: run %d sets of brokers, each with a database of its own, and give each a part of the tenants",
			c.Records, p.RecordsPerSecond, int(math.Ceil(p.RecordsPerSecond/(c.Records*busy))))
	}
	if p.Lost > 0 {
		note("an outage of %s leaves %d agents without a credential: they are renewed with as little as %.0f %% of their life left, so only lifetimes above %s bridge it",
			p.Outage, p.Lost, (1-latestRenewal)*100, time.Duration(float64(p.Outage)/(1-latestRenewal)).Round(time.Minute))
	}
	if p.Recovery.Seconds() > p.Lifetime.Seconds()*(1-latestRenewal) {
		note("recovery takes longer than what is left of a credential at its renewal: more agents run dry while others are served")
	}
}

// WriteTable writes the plan for people.
func (p Plan) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) } // Flush tells
	line("agents", "%d, credentials of %s", p.Agents, p.Lifetime)
	line("renewals", "%.1f/s", p.Renewals)
	line("STS", "%d account(s) or region(s), rate: %.0f each, shared by the brokers", p.Accounts, p.Rate)
	line("brokers", "%d (by %s; one to spare where there is more than one)", p.Brokers, p.Why)
	line("each", "%s, %.2f cores; %.2f while all reconnect within %s", Bytes.format(p.BrokerMemory), p.BrokerCores, p.StormCores, p.Back)
	line("database", "%.1f audit records/s, %s a day", p.RecordsPerSecond, Bytes.format(p.GrowthPerDay))
	line("after "+p.Outage.String()+" without STS", "%d agents without a credential, all supplied %s later", p.Lost, p.Recovery.Round(time.Second))
	line("the same, simulated", "%d agents without a credential, all supplied %s later; %.1f renewals/s before",
		p.Simulated.Lost, p.Simulated.Recovery.Round(time.Second), p.Simulated.Renewals)
	for _, problem := range p.Problems {
		line("note", "%s", problem)
	}
	return w.Flush()
}
