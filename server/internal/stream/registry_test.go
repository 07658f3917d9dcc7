package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	b := newBroker(t)
	for _, c := range []func(*Config){
		func(c *Config) { c.Heartbeat = -1 },
		func(c *Config) { c.PerAgent = -1 },
	} {
		bad := b.Config
		c(&bad)
		if _, err := New(bad); err == nil {
			t.Error("a negative limit is accepted")
		}
	}
}

// Whatever makes a caller bad ends exactly that caller's streams.
func TestChangesEndStreams(t *testing.T) {
	for _, test := range []struct {
		kind storage.Kind
		id   string // in the change
		bad  string // in the principal
		want reason.Reason
	}{
		{storage.KindTenant, "t1", "t1", reason.TenantDisabled},
		{storage.KindUser, "u1", "u1", reason.UserDisabled},
		{storage.KindUser, "u1", "u1", reason.PasswordChanged},
		{storage.KindAgent, "a1", "a1", reason.AgentDisabled},
		{storage.KindSession, "s1", "s1", reason.SessionEnded},
		{storage.KindCertificate, "id-of-c1", "c1", reason.CertificateRevoked},
	} {
		t.Run(string(test.want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t)
				p := principal(1)
				p.SessionID, p.SessionExpires = "s1", time.Now().Add(time.Hour)
				concerned := b.connect(p, Subscribe{})
				q := principal(2)
				q.TenantID, q.UserID = "t2", "u2"
				other := b.connect(q, Subscribe{})
				synctest.Wait()
				checks := b.checker.checks.Load()
				b.checker.refuse(test.bad, test.want)
				b.directory.revoked["id-of-c1"] = "c1"
				b.Changed(change(test.kind, test.id))
				if n := b.checker.checks.Load() - checks; n != 1 {
					t.Errorf("%d streams were checked, want the one concerned", n)
				}
				concerned.ended(t, test.want)
				other.alive(t)
				other.end()
				if b.Stats().Ended[string(test.want)] != 1 {
					t.Errorf("counted as %v", b.Stats().Ended)
				}
			})
		})
	}
}

// Agents that share a login whose password changed are told to log in again one
// after the other, and no other end is put off.
func TestNewPasswordSpreadsLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const agents, pace = 50, 40 * time.Millisecond
		b := newBroker(t)
		b.LoginPace = func() time.Duration { return pace }
		var all []*agent
		for i := range agents {
			p := principal(i)
			p.UserID = "shared"
			all = append(all, b.connect(p, Subscribe{}))
		}
		synctest.Wait()
		b.checker.refuse("shared", reason.PasswordChanged)
		b.Changed(change(storage.KindUser, "shared"))
		at, late := map[time.Duration]bool{}, 0
		for _, a := range all {
			a.ended(t, reason.PasswordChanged)
			told, ok := errors.AsType[*reason.Error](a.reason)
			if !ok || told.RetryAfter < 0 || told.RetryAfter > agents*pace {
				t.Fatalf("the agent was told %+v", a.reason)
			}
			at[told.RetryAfter] = true
			if told.RetryAfter > agents*pace/2 {
				late++
			}
		}
		if len(at) < agents/2 || late < agents/10 || late > agents*9/10 {
			t.Errorf("%d agents come at %d moments, %d of them in the later half", agents, len(at), late)
		}
		disabled := reason.New(reason.UserDisabled, "disabled")
		if err := b.spread(disabled, agents); err != disabled { //nolint:errorlint // the very same
			t.Errorf("another end became %v", err)
		}
	})
}

func TestChangesThatConcernNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome")
		checks, made := b.checker.checks.Load(), b.leases.made
		b.Changed([]storage.Change{
			{Kind: storage.KindTenant, ID: "t9"},
			{Kind: storage.KindGrant, ID: "b"},
			{Kind: storage.KindGrant, ID: "never-was"},
			{Kind: storage.KindCertificate, ID: "issued-now"},
			{Kind: storage.KindLocation, ID: "l"},
			{Kind: storage.KindRevocation, ID: "r"},
			{Kind: storage.KindSealedKey},
		})
		a.got(t)
		if b.checker.checks.Load() != checks || b.leases.made != made {
			t.Error("a stream was bothered for nothing")
		}
		// A change after which the caller is still good.
		b.Changed(change(storage.KindUser, "u1"))
		a.alive(t)
	})
}

// A stream that is opened while a change is applied does not slip through.
func TestChangeDuringOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			b := newBroker(t)
			var wg sync.WaitGroup
			var a *agent
			wg.Go(func() {
				s, err := b.Open(new(principal(1)), newConn())
				if err == nil {
					a = &agent{stream: s}
				}
			})
			wg.Go(func() {
				b.checker.refuse("t1", reason.TenantDisabled)
				b.Changed(change(storage.KindTenant, "t1"))
			})
			wg.Wait()
			if a != nil {
				if err := a.stream.Close(nil); !reason.Is(err, reason.TenantDisabled) {
					t.Fatalf("a stream of a disabled tenant is open: %v", err)
				}
			}
		}
	})
}

func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		bad, good := b.connect(principal(1), Subscribe{}), b.connect(principal(2), Subscribe{})
		synctest.Wait()
		b.checker.refuse("c1", reason.CertificateRevoked)
		b.Recheck()
		bad.ended(t, reason.CertificateRevoked)
		good.alive(t)
		good.end()
	})
}

// A change that was never announced is found with the next heartbeat.
func TestUnannouncedChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		a := b.connect(principal(1), Subscribe{})
		b.checker.refuse("a1", reason.AgentDisabled)
		rest(defaultHeartbeat + time.Second)
		a.ended(t, reason.AgentDisabled)
	})
}

func TestHeartbeatsOverDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		var agents []*agent
		for i := range 5 {
			agents = append(agents, b.connect(principal(i), Subscribe{}))
		}
		const days = 3
		rest(days * 24 * time.Hour)
		synctest.Wait()
		for i, a := range agents {
			times := slices.Clone(a.times)
			sent := a.take()
			if want := days * 24 * 120; len(sent) < want || len(sent) > want+2 { // with the welcome
				t.Errorf("agent %d got %d messages, want %d", i, len(sent), want)
			}
			for j := 2; j < len(times); j++ {
				if gap := times[j].Sub(times[j-1]); gap != defaultHeartbeat {
					t.Fatalf("agent %d: %s between two heartbeats", i, gap)
				}
			}
			if last := sent[len(sent)-1].Heartbeat; last == nil || !last.Time.Equal(times[len(times)-1]) {
				t.Errorf("the last message is %+v", last)
			}
			a.end()
		}
		if n := b.Stats().Heartbeats; n < 5*days*24*119 {
			t.Errorf("%d heartbeats were counted", n)
		}
	})
}

func TestCertificateAndSessionEnd(t *testing.T) {
	for _, test := range []struct {
		name        string
		certificate time.Duration
		session     time.Duration
		want        reason.Reason
	}{
		{"certificate", 26 * time.Hour, 0, reason.CertificateExpired},
		{"session", 26 * time.Hour, 11*time.Hour + 123*time.Millisecond, reason.TokenExpired},
		{"certificate before the session", time.Hour, 11 * time.Hour, reason.CertificateExpired},
		{"before the first message", time.Second, 0, reason.CertificateExpired},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t)
				p := principal(1)
				p.Certificate.NotAfter = time.Now().Add(test.certificate)
				life := test.certificate
				if test.session > 0 {
					p.SessionID, p.SessionExpires = "s", time.Now().Add(test.session)
					life = min(life, test.session)
				}
				a := b.connect(p)
				if life > firstMessage {
					a.say(Subscribe{})
				}
				rest(life - time.Millisecond)
				a.alive(t)
				rest(2 * time.Millisecond)
				a.ended(t, test.want)
			})
		})
	}
}

// Setting the wall clock delays no heartbeat; certificates end by the wall
// clock, whichever way it was set.
func TestClockSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		p := principal(1)
		p.Certificate.NotAfter = time.Now().Add(2 * time.Hour)
		a := b.connect(p, Subscribe{})
		synctest.Wait()
		a.take()

		b.skew.Store(int64(-24 * time.Hour)) // the clock is set back a day
		rest(3 * time.Hour)
		a.alive(t)
		if n := len(a.take()); n != 3*120 {
			t.Errorf("%d heartbeats in 3 hours", n)
		}
		b.skew.Store(0) // and corrected: the certificate ended an hour ago
		rest(defaultHeartbeat)
		a.ended(t, reason.CertificateExpired)
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, window = 100, time.Minute
		b := newBroker(t)
		b.grants("a")
		b.leases.issue("a")
		var agents []*agent
		for i := range n {
			agents = append(agents, b.connect(principal(i), Subscribe{}))
		}
		stuck := b.connect(principal(n), Subscribe{})
		early := b.connect(principal(n + 1))
		synctest.Wait()
		stuck.stick()
		b.leases.issue("a") // and is still sent before the farewell
		b.Drain(window)
		b.Drain(time.Hour) // changes nothing
		var delays []time.Duration
		for _, a := range agents {
			synctest.Wait()
			<-a.done
			if a.err != nil || a.reason != nil {
				t.Fatalf("a drained stream ended with %v", a.err)
			}
			sent := a.take()
			if got := fmt.Sprint(names(sent)); got != "[welcome credential a credential a reconnect]" {
				t.Fatalf("got %s", got)
			}
			delays = append(delays, sent[len(sent)-1].Reconnect.Delay)
		}
		slices.Sort(delays)
		for i, d := range delays {
			// n+2 streams share the window, so that each has its own part of it.
			if d < 0 || d > window || i > 0 && d-delays[i-1] > 5*window/n {
				t.Fatalf("delay %d is %s after %s", i, d, delays[max(i-1, 0)])
			}
		}
		early.ended(t, reason.Draining)
		_, err := b.Open(new(principal(1)), newConn())
		var why *reason.Error
		if !errors.As(err, &why) || why.Reason != reason.Draining || why.RetryAfter <= 0 || why.RetryAfter > window {
			t.Errorf("a new stream: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Wait(ctx); err == nil {
			t.Error("Wait did not wait for the stuck stream")
		}
		begun := time.Now()
		if err := b.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(begun); waited > window {
			t.Errorf("the last stream went after %s", waited)
		}
		<-stuck.done
		if got := reason.Of(stuck.err); got != reason.StreamStalled && got != reason.Draining {
			t.Errorf("the stuck stream ended with %v", stuck.err)
		}
		if err := b.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if ended := b.Stats().Ended; ended[EndedOK] != n {
			t.Errorf("ended: %v", ended)
		}
	})
}

// An agent that cannot be told to reconnect does not hold up the shutdown.
func TestDrainWithStuckAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		a := b.connect(principal(1), Subscribe{})
		synctest.Wait()
		a.stick()
		b.leases.issue("a")
		b.Drain(5 * time.Second)
		begun := time.Now()
		if err := b.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begun); waited != 5*time.Second {
			t.Errorf("waited %s", waited)
		}
		a.ended(t, reason.Draining)
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("b", "a")
		c := b.leases.issue("a")
		var agents []*agent
		for i := range 25 {
			p := principal(i % 5)
			if i%2 == 0 {
				p.Tenant = "even"
			}
			agents = append(agents, b.connect(p, Subscribe{Client: "kopia"}))
			rest(time.Millisecond)
		}
		synctest.Wait()
		var seen []string
		after := ""
		for pages := 0; ; pages++ {
			infos, more, err := b.List(Filter{}, after, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range infos {
				seen = append(seen, info.ID)
				after = info.ID
			}
			// A stream that ends between two pages is no trouble.
			if pages == 0 {
				agents[9].end()
			}
			if !more {
				break
			}
		}
		if len(seen) != 25 || !slices.IsSorted(seen) {
			t.Errorf("%d streams were listed: %q", len(seen), seen)
		}
		infos, _, err := b.List(Filter{Tenant: "even", Agent: "agent-2"}, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) != 3 {
			t.Fatalf("%d streams of that agent", len(infos))
		}
		info := infos[0]
		if info.Tenant != "even" || info.Agent != "agent-2" || info.Login != "ann" || info.Peer != "192.0.2.1:5" ||
			info.Client != "kopia" || info.CertificateSerial != "c2" || info.Opened.IsZero() || info.Pending != 0 {
			t.Errorf("%+v", info)
		}
		if g := info.Grants; len(g) != 2 || g[0].Grant != "a" || g[0].CredentialID != c.ID || g[1].Grant != "b" || g[1].CredentialID != "" {
			t.Errorf("grants %+v", g)
		}
		if _, _, err := b.List(Filter{}, "nonsense", 1); !reason.Is(err, reason.InvalidRequest) {
			t.Errorf("a strange token: %v", err)
		}
		if infos, more, err := b.List(Filter{}, uuid.Must(uuid.NewV7()).String(), 1); err != nil || more || len(infos) != 0 {
			t.Errorf("past the end: %v %v %v", infos, more, err)
		}
		for _, test := range []struct {
			f    Filter
			want int
		}{
			{Filter{}, 24}, {Filter{TenantID: "t1"}, 24}, {Filter{TenantID: "t2"}, 0}, {Filter{UserID: "u1"}, 24},
			{Filter{AgentID: "a4"}, 4}, {Filter{CertificateSerial: "c3"}, 5},
		} {
			if n := b.Count(test.f); n != test.want {
				t.Errorf("%+v selects %d streams, want %d", test.f, n, test.want)
			}
		}
		for _, a := range agents {
			a.end()
		}
	})
}

// Streams that have to end fall silent before the leases learn why, who then
// still have their subscriptions; and all are told before any clears up.
func TestStreamsEndAroundTheirLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		var agents []*agent
		for i := range 3 {
			agents = append(agents, b.connect(principal(i), Subscribe{}))
		}
		synctest.Wait()
		for _, a := range agents {
			a.take()
		}
		b.checker.refuse("t1", reason.TenantDisabled)
		told := false
		b.After(func([]storage.Change) {
			b.leases.issue("a")
			synctest.Wait()
			told = true
			if n := len(b.leases.open("a")); n != len(agents) {
				t.Errorf("%d subscriptions are open when the leases are told, want %d", n, len(agents))
			}
			for _, a := range agents {
				if m := a.take(); len(m) > 0 {
					t.Errorf("sent to a stream that has to end: %v", names(m))
				}
			}
		})(change(storage.KindTenant, "t1"))
		if !told {
			t.Error("the leases were not told")
		}
		for _, a := range agents {
			a.ended(t, reason.TenantDisabled)
		}
		if n := len(b.leases.open("a")); n != 0 {
			t.Errorf("%d subscriptions are open at the end", n)
		}
	})
}

func TestTellingComesBeforeClearingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now telling
		now.wait() // for nobody
		now.begin()
		now.begin()
		done := 0
		var waiting sync.WaitGroup
		for range 2 {
			waiting.Go(now.wait)
		}
		go func() {
			waiting.Wait()
			done++
		}()
		for end := range 2 {
			synctest.Wait()
			if done != 0 {
				t.Fatalf("nobody waits after %d ends of two", end)
			}
			now.end()
		}
		synctest.Wait()
		if done != 1 {
			t.Error("they still wait after the end")
		}
	})
}
