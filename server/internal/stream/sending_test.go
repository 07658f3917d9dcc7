package stream

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// While the agent does not read everything coalesces, and nobody else waits.
func TestStuckAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		stuck := b.connect(principal(1), Subscribe{Grants: []string{"a", "b"}})
		other := b.connect(principal(2), Subscribe{Grants: []string{"a"}})
		synctest.Wait()
		stuck.take()
		other.take()
		stuck.stick()
		for range 1000 {
			b.leases.issue("a")
			b.leases.deliver("b", lease.Event{Problem: &lease.Problem{GrantID: "b", Grant: "b", Err: reason.New(reason.STSThrottled, "x")}})
			other.got(t, "credential a")
		}
		last := b.leases.issue("a")
		other.got(t, "credential a")
		infos, _, err := b.List(Filter{Agent: "agent-1"}, "", 1)
		if err != nil {
			t.Fatal(err)
		}
		if n := infos[0].Pending; n < 2 || n > 4 {
			t.Errorf("%d messages pend", n)
		}
		stuck.read()
		synctest.Wait()
		sent := stuck.take()
		if len(sent) != 3 {
			t.Fatalf("after all the agent got %q", names(sent))
		}
		var newest string
		for _, m := range sent {
			if m.Credential != nil {
				newest = m.Credential.ID
			}
		}
		if newest != last.ID {
			t.Error("the last credential did not come last")
		}
		stuck.end()
		other.end()
	})
}

func TestStallEndsTheStream(t *testing.T) {
	for _, heartbeat := range []time.Duration{time.Second, 30 * time.Second, 5 * time.Minute} {
		t.Run(heartbeat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, func(c *Config) { c.Heartbeat = heartbeat })
				b.grants("a")
				a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
				synctest.Wait()
				rest(7 * time.Second)
				a.stick()
				b.leases.issue("a")
				rest(stallLimit - 8*time.Second)
				a.alive(t)
				rest(stallLimit)
				a.ended(t, reason.StreamStalled)
			})
		})
	}
}

// The end of a stream makes the Send in progress return before Close does.
func TestEndWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		c := newConn()
		c.lag = time.Second
		a := b.connectOver(c, principal(1), Subscribe{Grants: []string{"a"}})
		synctest.Wait()
		a.take()
		a.stick()
		b.leases.issue("a")
		synctest.Wait()
		b.leases.issue("a")
		b.checker.refuse("a1", reason.AgentDisabled)
		b.Changed(change(storage.KindAgent, "a1"))
		<-a.done
		a.ended(t, reason.AgentDisabled)
		if a.inSend != 0 || len(a.take()) != 0 {
			t.Error("something was sent after the end")
		}
		b.leases.issue("a") // to nobody
	})
}

// A caller who is no longer good gets no credential, even if no change was
// announced.
func TestCheckBeforeSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome")
		b.checker.refuse("u1", reason.PasswordChanged)
		b.leases.issue("a")
		a.ended(t, reason.PasswordChanged)
		a.got(t)
	})
}

func TestOldCredentialsAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		older := newCredential("a")
		b.leases.issue("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome", "credential a")
		b.leases.deliver("a", lease.Event{Credential: older})
		a.got(t)
		b.leases.issue("a")
		a.got(t, "credential a")
	})
}

// A change that is applied while its stream's message is being sent is not
// lost.
func TestChangeDuringSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		b.leases.issue("a")
		b.leases.issue("late")
		c := newConn()
		c.onSend = func(m Message) {
			if m.Credential != nil && m.Credential.Grant == "a" {
				b.grants("late")
				b.Changed(change(storage.KindGrant, "late"))
			}
		}
		a := b.connectOver(c, principal(1), Subscribe{})
		a.got(t, "welcome", "credential a", "credential late")
	})
}

func TestSendFailureEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome")
		a.cancel()
		b.leases.issue("a")
		<-a.done
		if !errors.Is(a.err, errGone) {
			t.Errorf("ended with %v", a.err)
		}
		if n := b.Stats().Ended[EndedByAgent]; n != 1 {
			t.Errorf("%d streams were ended by agents", n)
		}
	})
}
