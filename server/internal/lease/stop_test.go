package lease

import (
	"context"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// At the end no call is begun, those in flight land and are delivered, and
// after Run has returned nothing is.
func TestStopWaitsForCallsInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 5 * time.Second })
		a, b := w.subscribe(1), w.subscribe(2)
		after(time.Second)
		began := time.Now()
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("the end took %s", took)
		}
		a.want(1, 0, 0)
		b.want(0, 0, 0)
		w.authority.deny("user:u1", reason.New(reason.UserDisabled, "disabled"))
		w.change(storage.KindUser, "u1")
		c := w.subscribe(3)
		after(hour)
		a.want(1, 0, 0)
		c.want(0, 1, 0)
		wantReason(t, c.problems()[0].Problem.Err, reason.Draining)
		a.sub.Close()
		c.sub.Close()
	}, withMaxCalls(1))
}

// A call that does not come back is cut off at the deadline, and what it may
// still bring is not delivered.
func TestStopCutsOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = hour })
		a := w.subscribe(1)
		after(time.Second)
		began := time.Now()
		if err := w.stop(); err == nil {
			t.Error("nothing is said of the call that was cut off")
		}
		if took := time.Since(began); took != defaultDrain {
			t.Errorf("the end took %s", took)
		}
		a.want(0, 0, 0)
		if n := len(w.trail.of(audit.CredentialIssued)); n != 0 {
			t.Errorf("%d issues", n)
		}
	})
}

// Refusals that wait to be recorded are, before the end.
func TestStopWritesWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.deny("tenant:t1", reason.New(reason.TenantDisabled, "disabled"))
		w.trail.set(func(f *fakeTrail) { f.onAppend = func(storage.AuditRecord) { pass(100 * time.Millisecond) } })
		for i := range 100 {
			w.subscribe(i)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		if n := len(w.trail.of(audit.CredentialRefused)); n != 100 {
			t.Errorf("%d refusals were recorded", n)
		}
		// Later ones are logged.
		w.subscribe(1000)
		after(time.Second)
	}, quietly)
}

// Before Run nothing is issued, and with it everything is.
func TestSubscribeBeforeRun(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		m, err := New(w.m.cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.m = m
		a := w.subscribe(1)
		after(time.Minute)
		a.want(0, 0, 0)
		w.start()
		after(time.Second)
		a.want(1, 0, 0)
		if err := m.Run(context.Background()); err == nil {
			t.Error("a second Run was accepted")
		}
	})
}

func TestNewNamesEveryProblem(t *testing.T) {
	good := newWorld(t).m.cfg
	for name, spoil := range map[string]func(*Config){
		"authority": func(c *Config) { c.Authority = nil },
		"linger":    func(c *Config) { c.Linger = -1 },
		"lookups":   func(c *Config) { c.Lookups = -1 },
		"name":      func(c *Config) { c.Accounts = map[string]Account{"": good.Accounts["main"]} },
		"issuer":    func(c *Config) { c.Accounts = with(good, func(a *Account) { a.Issuer = nil }) },
		"rate":      func(c *Config) { c.Accounts = with(good, func(a *Account) { a.Rate = 0 }) },
		"lifetimes": func(c *Config) { c.Accounts = with(good, func(a *Account) { a.MaxLifetime = time.Minute }) },
		"calls":     func(c *Config) { c.Accounts = with(good, func(a *Account) { a.MaxCalls = -1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			spoil(&c)
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func with(c Config, change func(*Account)) map[string]Account {
	a := c.Accounts["main"]
	change(&a)
	return map[string]Account{"main": a}
}
