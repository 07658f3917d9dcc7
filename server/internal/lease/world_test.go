package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// world is a manager among fakes: an STS for each account, an authority, an
// audit trail that is its own history, and a wall clock that can be set.
type world struct {
	t         testing.TB
	m         *Manager
	sts       *fakeSTS // of account main
	authority *fakeAuthority
	trail     *fakeTrail
	cancel    context.CancelFunc
	stopped   chan error
	// abrupt: calls may have to be cut off at the end.
	abrupt bool

	mu     sync.Mutex
	offset time.Duration // the wall clock's error
}

// The lifetime of the world's grants.
const hour = time.Hour

// wall is the broker's clock.
func (w *world) wall() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

// step moves the broker's clock.
func (w *world) step(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

type option func(*world, *Config)

// withRate sets the main account's rate.
func withRate(perSecond float64) option {
	return func(_ *world, c *Config) {
		a := c.Accounts["main"]
		a.Rate = perSecond
		c.Accounts["main"] = a
	}
}

// withMaxCalls sets the main account's bound on calls in flight.
func withMaxCalls(n int) option {
	return func(_ *world, c *Config) {
		a := c.Accounts["main"]
		a.MaxCalls = n
		c.Accounts["main"] = a
	}
}

// withAccount adds an account with its own STS.
func withAccount(name string, sts *fakeSTS) option {
	return func(_ *world, c *Config) {
		c.Accounts[name] = Account{Issuer: sts, Rate: 100, MinLifetime: 15 * time.Minute, MaxLifetime: 12 * hour}
	}
}

// abruptly allows that calls are cut off at the end.
func abruptly(w *world, _ *Config) { w.abrupt = true }

// quietly keeps warnings out of the test's output.
func quietly(_ *world, c *Config) { c.Log = slog.New(slog.DiscardHandler) }

// newWorld makes the fakes and a manager that does not run yet.
func newWorld(t testing.TB, options ...option) *world {
	t.Helper()
	w := &world{t: t}
	w.sts = newSTS()
	w.authority = newAuthority(w)
	w.trail = &fakeTrail{world: w}
	c := Config{
		Accounts:  map[string]Account{"main": {Issuer: w.sts, Rate: 100, MinLifetime: 15 * time.Minute, MaxLifetime: 12 * hour}},
		Authority: w.authority, Trail: w.trail, History: w.trail, Now: w.wall,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, o := range options {
		o(w, &c)
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.m = m
	return w
}

// start runs the manager until the test ends.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.stopped = cancel, make(chan error, 1)
	go func() { w.stopped <- w.m.Run(ctx) }()
}

// stop ends the manager and gives what Run said.
func (w *world) stop() error {
	w.cancel()
	err := <-w.stopped
	w.cancel = nil
	return err
}

// restart replaces the broker by a new one among the same fakes: what was in
// memory is gone.
func (w *world) restart() {
	w.t.Helper()
	c := w.m.cfg
	if w.cancel != nil {
		if err := w.stop(); err != nil {
			w.t.Error(err)
		}
	}
	m, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	w.start()
}

// inBubble runs a test in a synctest bubble with a running manager.
func inBubble(t *testing.T, test func(t *testing.T, w *world), options ...option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options...)
		t.Cleanup(func() {
			if w.cancel == nil {
				return
			}
			if err := w.stop(); err != nil && !w.abrupt {
				t.Error(err)
			}
		})
		w.start()
		test(t, w)
	})
}

// pass lets time pass: in a bubble no real time does. It receives from no timer
// that has already fired: where two goroutines of a bubble do that at once Go
// 1.26's race detector crashes.
func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// after lets time pass until all is quiet.
func after(d time.Duration) {
	pass(d)
	synctest.Wait()
}

// holder makes the n-th agent, of tenant t1 with user u1.
func holder(n int) Holder {
	return Holder{
		TenantID: "t1", Tenant: "acme", UserID: "u1", Login: "backup", AgentID: fmt.Sprintf("a%d", n), Agent: fmt.Sprintf("agent-%d", n),
		SessionID:   fmt.Sprintf("s%d", n),
		Certificate: Certificate{Serial: fmt.Sprintf("%x", 1000+n), Thumbprint: fmt.Sprintf("%064x", n), NotAfter: time.Now().Add(365 * 24 * hour)},
		Actor:       fmt.Sprintf("spiffe://example.com/tenant/acme/agent/agent-%d", n), Peer: "192.0.2.1:1",
	}
}

// agent is a subscriber that keeps what it is told and checks that issue times
// grow.
type agent struct {
	t  testing.TB
	w  *world
	n  int
	mu sync.Mutex
	// events in order, each at its time.
	events []told
	last   *Credential
	sub    *Subscription
	check  func(Event)
}

type told struct {
	at time.Time
	Event
}

func (a *agent) Deliver(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, told{time.Now(), e})
	if c := e.Credential; c != nil {
		if a.last != nil && !c.IssuedAt.After(a.last.IssuedAt) {
			a.t.Errorf("agent %d: a credential issued at %s came after one of %s", a.n, c.IssuedAt, a.last.IssuedAt)
		}
		a.last = c
	}
	if a.check != nil {
		a.check(e)
	}
}

// subscribe makes the n-th agent and subscribes it to grant g1.
func (w *world) subscribe(n int) *agent { return w.subscribeAs(n, holder(n), "g1", nil) }

func (w *world) subscribeAs(n int, h Holder, grant string, held *Held) *agent {
	a := &agent{t: w.t, w: w, n: n}
	a.sub = w.m.Subscribe(h, grant, held, a)
	return a
}

func (a *agent) credentials() []told { return a.of(func(e Event) bool { return e.Credential != nil }) }
func (a *agent) problems() []told    { return a.of(func(e Event) bool { return e.Problem != nil }) }
func (a *agent) revocations() []told { return a.of(func(e Event) bool { return e.Revoked != nil }) }

func (a *agent) of(kind func(Event) bool) []told {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []told
	for _, e := range a.events {
		if kind(e.Event) {
			out = append(out, e)
		}
	}
	return out
}

// credential is the last one.
func (a *agent) credential() *Credential {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// want checks how many events of each kind have come.
func (a *agent) want(credentials, problems, revocations int) {
	a.t.Helper()
	c, p, r := a.credentials(), a.problems(), a.revocations()
	if len(c) != credentials || len(p) != problems || len(r) != revocations {
		a.t.Fatalf("agent %d was told of %d credentials, %d problems and %d revocations, want %d, %d and %d:%s",
			a.n, len(c), len(p), len(r), credentials, problems, revocations, a.story())
	}
}

func (a *agent) story() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := ""
	for _, e := range a.events {
		switch {
		case e.Credential != nil:
			out += fmt.Sprintf("\n%s credential %s until %s", e.at.Format(time.TimeOnly), e.Credential.ID, e.Credential.Expires.Format(time.TimeOnly))
		case e.Problem != nil:
			out += fmt.Sprintf("\n%s problem %v, retry %s, good until %s", e.at.Format(time.TimeOnly), e.Problem.Err, e.Problem.RetryAt.Format(time.TimeOnly), e.Problem.GoodUntil.Format(time.TimeOnly))
		case e.Revoked != nil:
			out += fmt.Sprintf("\n%s revoked %q %v", e.at.Format(time.TimeOnly), e.Revoked.CredentialID, e.Revoked.Err)
		}
	}
	return out
}

// wantReason checks the reason of an error.
func wantReason(t testing.TB, err error, want reason.Reason) {
	t.Helper()
	if got := reason.Of(err); got != want {
		t.Fatalf("the reason is %q (%v), want %q", got, err, want)
	}
}

// change tells the manager of a change in the authority.
func (w *world) change(kind storage.Kind, id string) {
	w.m.Changed([]storage.Change{{Sequence: w.authority.head(), Kind: kind, ID: id}})
}
