package lease

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/hands"
	"github.com/stokerd/stoker/server/internal/issuer"
)

// Config is what a manager is made of. Fields without a default are required.
type Config struct {
	// Accounts has every account that a location may name.
	Accounts  map[string]Account
	Authority Authority
	Trail     Trail
	History   History
	Log       *slog.Logger
	// Observer and Tracer may be nil.
	Observer Observer
	Tracer   Tracer
	// Now is the wall clock. Default time.Now.
	Now func() time.Time
	// Linger is how long a lease outlives its last subscriber. Default 2m.
	Linger time.Duration
	// Cooldown is how long a refusal by STS is answered from memory to new
	// subscribers, so that a reconnect loop is no storm of calls. Default 1m.
	Cooldown time.Duration
	// ReportInterval is how often a lease may be replaced because S3 refused
	// its credential. Default 1m.
	ReportInterval time.Duration
	// CallTimeout bounds one call to STS; the issuer's own limit is usually
	// shorter. Default 2m.
	CallTimeout time.Duration
	// AuditTimeout bounds one append to the audit trail and one look into the
	// history. Default 10s.
	AuditTimeout time.Duration
	// Drain is how long Run waits for calls in flight when it stops. Default
	// 10s.
	Drain time.Duration
	// Lookups bounds the history look-ups at once. Default 8.
	Lookups int
}

const (
	defaultLinger         = 2 * time.Minute
	defaultCooldown       = time.Minute
	defaultReportInterval = time.Minute
	defaultCallTimeout    = 2 * time.Minute
	defaultAuditTimeout   = 10 * time.Second
	defaultDrain          = 10 * time.Second
	defaultLookups        = 8
	defaultMaxCalls       = 64

	// refusalWriters is how many refusals are recorded at once, and
	// longestQueue how many records or look-ups may wait.
	refusalWriters = 64
	longestQueue   = 200_000

	// mostLanded bounds the answers of an account's STS that wait for the audit
	// trail, which is what a trail that hangs costs.
	mostLanded = 512
)

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&c.Linger, defaultLinger},
		{&c.Cooldown, defaultCooldown},
		{&c.ReportInterval, defaultReportInterval},
		{&c.CallTimeout, defaultCallTimeout},
		{&c.AuditTimeout, defaultAuditTimeout},
		{&c.Drain, defaultDrain},
	} {
		if *d.field == 0 {
			*d.field = d.standard
		}
	}
	if c.Lookups == 0 {
		c.Lookups = defaultLookups
	}
}

// validate names everything that is missing or out of bounds.
func (c *Config) validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Authority == nil || c.Trail == nil || c.History == nil || c.Log == nil {
		report("authority, trail, history and log are all required")
	}
	for _, d := range []time.Duration{c.Linger, c.Cooldown, c.ReportInterval, c.CallTimeout, c.AuditTimeout, c.Drain} {
		if d < 0 {
			report("a duration is negative: %s", d)
		}
	}
	if c.Lookups < 0 {
		report("lookups must not be negative")
	}
	for name, a := range c.Accounts {
		switch {
		case name == "":
			report("an account has no name")
		case a.Issuer == nil:
			report("account %q: an issuer is required", name)
		case !(a.Rate > 0) || a.Rate > 1e6:
			report("account %q: set a rate above 0 calls a second", name)
		case a.MinLifetime < time.Second || a.MaxLifetime < a.MinLifetime:
			report("account %q: the lifetimes must be at least 1s, the longest no shorter than the shortest", name)
		case a.MaxCalls < 0:
			report("account %q: the bound on calls in flight must not be negative", name)
		case a.MaxName != 0 && a.MaxName < everySTS:
			report("account %q: names of sessions have up to %d characters", name, everySTS)
		}
	}
	return errors.Join(problems...)
}

// Manager keeps all leases. Its methods are safe for concurrent use.
type Manager struct {
	cfg      Config
	clock    clock
	accounts map[string]*account
	// order is the accounts in the order they are served in a round; the first
	// is nowhere, where leases wait whose account is not known yet.
	order   []*account
	nowhere *account

	// mu guards the leases and the index. It is taken after a lease's mu.
	mu     sync.RWMutex
	leases map[key]*lease
	index  index
	// floor is the latest IssuedAt of any lease that ended: a new lease of the
	// same holder must not begin below it.
	floor int64

	// queues guards the timers, each account's queues, gate and pace, and
	// leases' places. It is taken after a lease's mu.
	queues sync.Mutex
	timers queue

	// kicked wakes the scheduler; its one place coalesces.
	kicked chan struct{}
	calls  sync.WaitGroup
	// flights does what is in calls.
	flights *hands.Pool[flight]
	// lookups asks the history, records writes refusals.
	lookups, records crew

	// ctx is that of all work that no caller owns; cancel ends it.
	ctx    context.Context
	cancel context.CancelFunc
	// stopping closes when no further call is begun, done when nothing more
	// is delivered.
	stopping, done chan struct{}
	closed         atomic.Bool
	seed           maphash.Seed
	running        atomic.Bool
	count          counters
}

// account is one STS, its budget and the leases that wait for it. The
// manager's queues lock guards the second half.
type account struct {
	name              string
	issuer            issuer.Issuer
	shortest, longest time.Duration
	most              int
	longestName       int

	// ready has the due leases, dry those of them whose holder has nothing,
	// waiting those that failed and are not due yet.
	ready, dry, waiting queue
	// passed counts the calls since one was made out of dry while it was not
	// empty.
	passed int
	pace   *pace // nil: none is needed
	gate   gate
	// flying counts the calls to STS, landed those that have been answered and
	// wait for the audit trail.
	flying, landed int
	// gathering: the queue is being filled, and nothing is taken from it.
	gathering int
	// late is how much later than asked the last credential ended: what STS's
	// clock is ahead, and the call's own time. behind is that, and what the
	// broker's clock has been set back since.
	late, behind time.Duration
}

// New makes a manager. Subscriptions are taken at once; calls to STS begin
// with Run.
func New(c Config) (*Manager, error) {
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("lease manager: %w", err)
	}
	m := &Manager{
		cfg:      c,
		accounts: make(map[string]*account, len(c.Accounts)),
		nowhere:  newAccount("", Account{}),
		leases:   make(map[key]*lease),
		timers:   queue{kind: inTimers},
		kicked:   make(chan struct{}, 1),
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
		seed:     maphash.MakeSeed(),
	}
	m.flights = hands.New(m.fly)
	m.clock.init(c.Now)
	m.index.init()
	m.lookups.init(c.Lookups, longestQueue)
	m.records.init(refusalWriters, longestQueue)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for name, a := range c.Accounts {
		made := newAccount(name, a)
		made.pace = newPace(a.Rate)
		m.accounts[name] = made
		m.order = append(m.order, made)
	}
	sort.Slice(m.order, func(i, j int) bool { return m.order[i].name < m.order[j].name })
	m.order = append([]*account{m.nowhere}, m.order...)
	return m, nil
}

// full says that no further call may be made until one ends.
func (a *account) full() bool { return a.flying >= a.most || a.landed >= mostLanded }

func newAccount(name string, a Account) *account {
	made := &account{
		name: name, issuer: a.Issuer, shortest: a.MinLifetime, longest: a.MaxLifetime, most: a.MaxCalls, longestName: a.MaxName,
		ready: queue{kind: inReady}, dry: queue{kind: inDry}, waiting: queue{kind: inWaiting},
	}
	if made.most == 0 {
		made.most = defaultMaxCalls
	}
	return made
}

// kick makes the scheduler look again.
func (m *Manager) kick() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}
