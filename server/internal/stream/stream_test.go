package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestSubscribeByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		b.leases.issue("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a", "b"}, Client: "restic 0.18"})
		a.got(t, "welcome", "credential a")
		b.leases.issue("b")
		b.leases.issue("a")
		a.got(t, "credential b", "credential a")

		sub := b.leases.open("a")[0]
		want := HolderOf(principal(1))
		if sub.holder != want {
			t.Errorf("the lease has holder %+v, want %+v", sub.holder, want)
		}
		a.end()
		if !sub.closed || len(b.leases.open("b")) != 0 {
			t.Error("the subscriptions outlive the stream")
		}
	})
}

func TestWelcomeComesFirstAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, func(c *Config) { c.Heartbeat = 7 * time.Second })
		b.grants("a", "b")
		p := principal(1)
		a := b.connect(p, Subscribe{Grants: []string{"a"}}, Subscribe{Grants: []string{"b"}})
		synctest.Wait()
		sent := a.take()
		if len(sent) != 1 || sent[0].Welcome == nil {
			t.Fatalf("got %q", names(sent))
		}
		w := sent[0].Welcome
		if w.StreamID != a.stream.ID() || w.Heartbeat != 7*time.Second || !w.Time.Equal(time.Now()) || w.Principal.Agent != p.Agent {
			t.Errorf("welcome %+v", w)
		}
	})
}

func TestUnknownGrantsAreProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "x"}, TenantID: "t2", Name: "foreign"})
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "y"}, TenantID: "t1", UserID: "u2", Name: "colleagues"})
		a := b.connect(principal(1), Subscribe{Grants: []string{"foreign", "none", "colleagues"}})
		a.got(t, "welcome", "problem colleagues GRANT_UNKNOWN", "problem foreign GRANT_UNKNOWN", "problem none GRANT_UNKNOWN")
		a.say(Subscribe{Grants: []string{"none"}})
		a.got(t, "problem none GRANT_UNKNOWN")
		if b.leases.made != 0 {
			t.Error("a lease was asked for a grant that the user does not have")
		}
		a.alive(t)

		// It comes into being, and the agent need not ask again.
		b.grants("none")
		b.leases.issue("none")
		b.Changed(change(storage.KindGrant, "none"))
		a.got(t, "credential none")
	})
}

func TestSubscribeToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "off"}, TenantID: "t1", Name: "off", Disabled: true})
		for _, g := range []string{"a", "b", "c", "off"} {
			b.leases.issue(g)
		}
		a := b.connect(principal(1), Subscribe{})
		synctest.Wait()
		if got := names(a.take()); len(got) != 3 {
			t.Fatalf("got %q", got)
		}
		// One is added, one enabled, one of another user added.
		b.grants("c")
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "y"}, TenantID: "t1", UserID: "u2", Name: "colleagues"})
		b.Changed(change(storage.KindGrant, "c"))
		a.got(t, "credential c")
		b.grants("off")
		b.Changed(append(change(storage.KindGrant, "off"), change(storage.KindGrant, "y")...))
		a.got(t, "credential off")
		// One is deleted, and its lease has said nothing.
		b.directory.remove("b")
		b.Changed(change(storage.KindGrant, "b"))
		a.got(t, "revoked b GRANT_DELETED")
		if len(b.leases.open("b")) != 0 {
			t.Error("still subscribed to a deleted grant")
		}
		// One is deleted, and its lease has told already.
		b.directory.remove("c")
		b.leases.deliver("c", lease.Event{Revoked: &lease.Revoked{GrantID: "c", Grant: "c", Err: reason.New(reason.GrantDeleted, "gone")}})
		a.got(t, "revoked c GRANT_DELETED")
		b.Changed(change(storage.KindGrant, "c"))
		a.got(t)
		if len(b.leases.open("c")) != 0 {
			t.Error("still subscribed to a deleted grant")
		}
		a.alive(t)
	})
}

// A grant that is deleted and made anew under its name is another grant.
func TestGrantMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		b.leases.issue("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome", "credential a")
		b.directory.remove("a")
		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "a-2"}, TenantID: "t1", Name: "a"})
		c := newCredential("a-2")
		c.Grant = "a"
		b.leases.deliver("a-2", lease.Event{Credential: c})
		b.Changed(append(change(storage.KindGrant, "a"), change(storage.KindGrant, "a-2")...))
		a.got(t, "revoked a GRANT_DELETED", "credential a")
		if len(b.leases.open("a")) != 0 || len(b.leases.open("a-2")) != 1 {
			t.Error("subscribed to the wrong one")
		}
	})
}

// A grant that goes while it is subscribed to, before anybody watches it, is
// noticed all the same.
func TestGrantGoesWhileSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		b.leases.subscribing = func() { b.directory.remove("a") }
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome", "revoked a GRANT_DELETED")
		if len(b.leases.open("a")) != 0 || len(b.watched) != 0 {
			t.Error("still subscribed")
		}
		a.alive(t)
	})
}

// What a lease delivers for a subscription that was given up is not sent.
func TestLateDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome")
		old := b.leases.open("a")[0]
		a.say(Unsubscribe{Grants: []string{"a"}})
		a.say(Subscribe{Grants: []string{"a"}})
		synctest.Wait()
		for _, late := range []lease.Event{
			{Credential: newCredential("a")},
			{Problem: &lease.Problem{GrantID: "a", Grant: "a", Err: reason.New(reason.STSThrottled, "x")}},
			{Revoked: &lease.Revoked{GrantID: "a", Grant: "a", Err: reason.New(reason.GrantDeleted, "x")}},
		} {
			old.to.Deliver(late)
			a.got(t)
		}
		b.leases.issue("a")
		a.got(t, "credential a")
		a.end()
		b.leases.current["a"] = nil
		old.to.Deliver(lease.Event{Credential: newCredential("a")})
		a.got(t)
	})
}

// A stream of all grants leaves out only so many.
func TestExclusionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		a := b.connect(principal(1), Subscribe{})
		for i := range maxGrants {
			a.say(Unsubscribe{Grants: []string{fmt.Sprint("g", i)}})
		}
		a.alive(t)
		a.say(Unsubscribe{Grants: []string{"one-more"}})
		a.ended(t, reason.InvalidRequest)
	})
}

func TestDisabledGrantIsForItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		first := b.leases.issue("a")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		a.got(t, "welcome", "credential a")
		disabled := storage.Grant{Meta: storage.Meta{ID: "a"}, TenantID: "t1", Name: "a", Disabled: true}
		b.directory.put(disabled)
		b.leases.deliver("a", lease.Event{Revoked: &lease.Revoked{GrantID: "a", Grant: "a", Err: reason.New(reason.GrantDisabled, "off")}})
		b.Changed(change(storage.KindGrant, "a"))
		a.got(t, "revoked a GRANT_DISABLED")
		if len(b.leases.open("a")) != 1 {
			t.Fatal("the subscription was given up: who would tell when the grant is enabled?")
		}
		// A credential that comes in spite of it does not leave.
		b.leases.issue("a")
		a.got(t)
		// After the revocation as a whole even the same credential is news.
		b.grants("a")
		b.leases.deliver("a", lease.Event{Credential: first})
		a.got(t, "credential a")
	})
}

func TestUnsubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		b.leases.issue("a")
		b.leases.issue("b")
		a := b.connect(principal(1), Subscribe{})
		synctest.Wait()
		a.take()
		a.say(Unsubscribe{Grants: []string{"a", "never-subscribed"}})
		synctest.Wait()
		b.leases.issue("a")
		b.Changed(change(storage.KindGrant, "a"))
		a.got(t)
		if len(b.leases.open("a")) != 0 {
			t.Error("still subscribed")
		}
		a.say(Subscribe{Grants: []string{"a"}})
		a.got(t, "credential a")
		a.say(Unsubscribe{Grants: []string{"b"}})
		a.say(Subscribe{})
		a.got(t, "credential b")
	})
}

func TestHeldCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		b.leases.resume = true
		id, lost := uuid.NewString(), uuid.NewString()
		end := time.Now().Add(time.Hour)
		a := b.connect(principal(1), Subscribe{Held: []Held{
			{Grant: "a", Credential: lease.Held{ID: id, Expires: end}},
			{Grant: "gone", Credential: lease.Held{ID: lost}},
		}})
		// Of all grants: what is held and not the user's any more is told.
		a.got(t, "welcome", "problem gone GRANT_UNKNOWN")
		if sub := b.leases.open("a")[0]; sub.held == nil || sub.held.ID != id {
			t.Errorf("the lease was told of %+v", sub.held)
		}
		if sub := b.leases.open("b")[0]; sub.held != nil {
			t.Error("b has what is held of another grant")
		}
		infos, _, err := b.List(Filter{}, "", 10)
		if err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
		if g := infos[0].Grants[0]; g.CredentialID != id || !g.Expires.Equal(end) {
			t.Errorf("a resumed credential is listed as %+v", g)
		}
	})
}

// Each bad message has its reason, ends the stream, and is told.
func TestBadMessages(t *testing.T) {
	many := make([]string, maxGrants+1)
	for i := range many {
		many[i] = fmt.Sprint("g", i)
	}
	id := uuid.NewString()
	held := func(grant, id string) Held { return Held{Grant: grant, Credential: lease.Held{ID: id}} }
	manyHeld := make([]Held, maxGrants+1)
	for i := range manyHeld {
		manyHeld[i] = held(many[i], id)
	}
	for _, test := range []struct {
		name  string
		first bool // instead of after a subscription
		say   Request
		want  reason.Reason
	}{
		{"nothing first", true, nil, reason.InvalidRequest},
		{"nothing", false, nil, reason.InvalidRequest},
		{"unsubscribe first", true, Unsubscribe{Grants: []string{"a"}}, reason.SubscribeFirst},
		{"acknowledge first", true, Acknowledge{CredentialID: id}, reason.SubscribeFirst},
		{"report first", true, ReportRefused{CredentialID: id}, reason.SubscribeFirst},
		{"101 grants", true, Subscribe{Grants: many}, reason.InvalidRequest},
		{"101 held", true, Subscribe{Held: manyHeld}, reason.InvalidRequest},
		{"held twice", true, Subscribe{Held: []Held{held("a", id), held("a", id)}}, reason.InvalidRequest},
		{"held without a name", true, Subscribe{Held: []Held{held("", id)}}, reason.InvalidRequest},
		{"held without an id", true, Subscribe{Held: []Held{held("a", "")}}, reason.InvalidRequest},
		{"held with a strange id", true, Subscribe{Held: []Held{held("a", "{"+id+"}")}}, reason.InvalidRequest},
		{"empty name", true, Subscribe{Grants: []string{""}}, reason.InvalidRequest},
		{"upper-case name", true, Subscribe{Grants: []string{"A"}}, reason.InvalidRequest},
		{"name with a star", true, Subscribe{Grants: []string{"a*"}}, reason.InvalidRequest},
		{"name beginning with a dash", true, Subscribe{Grants: []string{"-a"}}, reason.InvalidRequest},
		{"64 characters", true, Subscribe{Grants: []string{strings.Repeat("a", 64)}}, reason.InvalidRequest},
		{"1 MB", true, Subscribe{Grants: []string{strings.Repeat("a", 1<<20)}}, reason.InvalidRequest},
		{"long client", true, Subscribe{Client: strings.Repeat("ä", 129)}, reason.InvalidRequest},
		{"client with a control character", true, Subscribe{Client: "x\x1b[2J"}, reason.InvalidRequest},
		{"unsubscribe from nothing", false, Unsubscribe{}, reason.InvalidRequest},
		{"unsubscribe from 101", false, Unsubscribe{Grants: many}, reason.InvalidRequest},
		{"unsubscribe from a strange name", false, Unsubscribe{Grants: []string{"ä"}}, reason.InvalidRequest},
		{"acknowledge a strange id", false, Acknowledge{CredentialID: "1"}, reason.InvalidRequest},
		{"report a strange id", false, ReportRefused{CredentialID: strings.Repeat("1", 36)}, reason.InvalidRequest},
		{"report a long code", false, ReportRefused{CredentialID: id, ErrorCode: strings.Repeat("x", 65)}, reason.InvalidRequest},
		{"report a code with a line break", false, ReportRefused{CredentialID: id, ErrorCode: "a\nb"}, reason.InvalidRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t)
				a := b.connect(principal(1))
				if !test.first {
					a.say(Subscribe{Grants: []string{"a"}})
				}
				a.say(test.say)
				a.ended(t, test.want)
				if b.open != 0 || b.leases.made != 0 {
					t.Error("something is left of the stream")
				}
			})
		})
	}
}

func TestGoodNames(t *testing.T) {
	for _, name := range []string{"a", "0", "a-", "nightly-2", strings.Repeat("a", 63)} {
		if !validName(name) {
			t.Errorf("%q is refused", name)
		}
	}
	if !readable(strings.Repeat("ä", 128), maxClient) || !readable("", 0) || readable("\xff", 10) {
		t.Error("readable is wrong")
	}
}

func TestAtMost100GrantsAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		var all []string
		for i := range maxGrants + 20 {
			all = append(all, fmt.Sprintf("g%03d", i))
		}
		b.grants(all...)
		byName := b.connect(principal(1), Subscribe{Grants: all[:maxGrants]})
		byName.alive(t)
		byName.say(Subscribe{Grants: all[:5]}) // nothing new
		byName.alive(t)
		byName.say(Subscribe{Grants: all[maxGrants : maxGrants+1]})
		byName.ended(t, reason.InvalidRequest)

		whole := b.connect(principal(2), Subscribe{})
		whole.got(t, "welcome", "problem  INVALID_REQUEST")
		if n := len(b.leases.subs); n != maxGrants {
			t.Fatalf("%d subscriptions, want %d", n, maxGrants)
		}
		// What is given up makes room.
		infos, _, err := b.List(Filter{}, "", 1)
		if err != nil {
			t.Fatal(err)
		}
		var drop []string
		for _, g := range infos[0].Grants[:30] {
			drop = append(drop, g.Grant)
		}
		whole.say(Unsubscribe{Grants: drop})
		synctest.Wait()
		if n := len(b.leases.subs); n != maxGrants-10 {
			t.Errorf("%d subscriptions, want %d", n, maxGrants-10)
		}
		whole.end()
	})
}

func TestTooManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		a := b.connect(principal(1), Subscribe{Grants: []string{"a"}})
		ack := Acknowledge{CredentialID: uuid.NewString()}
		for range messageBurst - 1 {
			a.say(ack)
		}
		a.alive(t)
		rest(10 * messageEvery)
		for range 10 {
			a.say(ack)
		}
		a.alive(t)
		a.say(ack)
		a.ended(t, reason.TooManyMessages)
	})
}

func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, func(c *Config) { c.PerAgent = 2 })
		first := b.connect(principal(1))
		second := b.connect(principal(1))
		_, err := b.Open(new(principal(1)), newConn())
		if !reason.Is(err, reason.TooManyStreams) {
			t.Fatalf("the third stream: %v", err)
		}
		other := b.connect(principal(2))
		first.end()
		third := b.connect(principal(1))
		for _, a := range []*agent{second, third, other} {
			a.end()
		}
	})
}

func TestOnlyUsersOnAgents(t *testing.T) {
	b := newBroker(t)
	p := principal(1)
	p.UserID = ""
	if _, err := b.Open(&p, newConn()); !reason.Is(err, reason.CallNotAllowed) {
		t.Errorf("without a user: %v", err)
	}
	b.checker.refuse("u1", reason.UserDisabled)
	if _, err := b.Open(new(principal(1)), newConn()); !reason.Is(err, reason.UserDisabled) {
		t.Errorf("with a disabled user: %v", err)
	}
	if b.open != 0 {
		t.Error("a refused stream is kept")
	}
}

func TestFirstMessageIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		a := b.connect(principal(1))
		rest(firstMessage - time.Millisecond)
		a.alive(t)
		a.got(t) // nothing before the subscription, no heartbeat either
		rest(2 * time.Millisecond)
		a.ended(t, reason.SubscribeFirst)
	})
}

func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		a := b.connect(principal(1))
		if err := a.stream.HalfClosed(); !reason.Is(err, reason.SubscribeFirst) {
			t.Errorf("before a subscription: %v", err)
		}
		a.say(Subscribe{})
		synctest.Wait()
		if err := a.stream.HalfClosed(); err != nil {
			t.Errorf("after a subscription: %v", err)
		}
	})
}

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		ca, cb := b.leases.issue("a"), b.leases.issue("b")
		a := b.connect(principal(1), Subscribe{Grants: []string{"a", "b"}})
		a.got(t, "welcome", "credential a", "credential b")
		a.say(ReportRefused{CredentialID: cb.ID, ErrorCode: "ExpiredToken"})
		a.got(t)
		if sub := b.leases.open("b")[0]; fmt.Sprint(sub.reports) != "[ExpiredToken]" {
			t.Errorf("the lease got %q", sub.reports)
		}
		unknown := uuid.NewString()
		a.say(ReportRefused{CredentialID: unknown})
		synctest.Wait()
		sent := a.take()
		if len(sent) != 1 || sent[0].Problem == nil || sent[0].Problem.Grant != "" ||
			sent[0].Problem.Err.Reason != reason.CredentialUnknown || sent[0].Problem.Err.Metadata["credential_id"] != unknown {
			t.Fatalf("an unknown credential: %q %+v", names(sent), sent)
		}
		b.leases.open("a")[0].refusal = reason.New(reason.ReportTooFrequent, "slow down").After(20 * time.Second)
		a.say(ReportRefused{CredentialID: ca.ID})
		synctest.Wait()
		sent = a.take()
		if len(sent) != 1 || sent[0].Problem == nil {
			t.Fatalf("got %q", names(sent))
		}
		p := sent[0].Problem
		if p.Grant != "a" || p.Err.Reason != reason.ReportTooFrequent || !p.RetryAt.Equal(time.Now().Add(20*time.Second)) || !p.GoodUntil.Equal(ca.Expires) {
			t.Errorf("too frequent: %+v", p)
		}
		b.leases.open("a")[0].refusal = errors.New("no reason at all")
		a.say(ReportRefused{CredentialID: ca.ID})
		a.ended(t, reason.Internal)
	})
}

func TestAcknowledge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a")
		c := b.leases.issue("a")
		a := b.connect(principal(1), Subscribe{})
		synctest.Wait()
		a.say(Acknowledge{CredentialID: uuid.NewString()})
		rest(time.Second)
		a.say(Acknowledge{CredentialID: c.ID})
		synctest.Wait()
		if sub := b.leases.open("a")[0]; fmt.Sprint(sub.acks) != fmt.Sprint([]string{c.ID}) {
			t.Errorf("the lease got %q", sub.acks)
		}
		infos, _, err := b.List(Filter{}, "", 1)
		if err != nil {
			t.Fatal(err)
		}
		if g := infos[0].Grants[0]; g.CredentialID != c.ID || !g.Acknowledged.Equal(time.Now()) || !g.Expires.Equal(c.Expires) {
			t.Errorf("listed as %+v", g)
		}
	})
}
