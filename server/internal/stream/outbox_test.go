package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
)

func drain(o *outbox) []string {
	var list []string
	for {
		l, ok := o.take()
		if !ok {
			if !o.empty() || o.pending() != 0 {
				panic("an empty outbox has something")
			}
			return list
		}
		switch {
		case l.welcomes:
			list = append(list, "welcome")
		case l.beats:
			list = append(list, "heartbeat")
		case l.Credential != nil:
			list = append(list, l.Credential.ID)
		case l.Revoked != nil && l.Revoked.CredentialID != "":
			list = append(list, "revoked "+l.Revoked.CredentialID)
		default:
			list = append(list, names([]Message{l.Message})...)
		}
	}
}

func TestOutboxKeepsTheLatest(t *testing.T) {
	credential := func(id string) lease.Event { return lease.Event{Credential: &lease.Credential{ID: id, Grant: "g"}} }
	problem := func(r reason.Reason) lease.Event {
		return lease.Event{Problem: &lease.Problem{Grant: "g", Err: reason.New(r, "x")}}
	}
	revoked := func(id string) lease.Event {
		return lease.Event{Revoked: &lease.Revoked{Grant: "g", CredentialID: id, Err: reason.New(reason.GrantDeleted, "x")}}
	}
	for _, test := range []struct {
		name  string
		filed []lease.Event
		want  []string
	}{
		{"nothing", nil, nil},
		{"a newer credential replaces", []lease.Event{credential("1"), credential("2")}, []string{"2"}},
		{"a newer problem replaces", []lease.Event{problem(reason.STSThrottled), problem(reason.STSUnavailable)}, []string{"problem g STS_UNAVAILABLE"}},
		{"a credential ends the problem", []lease.Event{problem(reason.STSThrottled), credential("1")}, []string{"1"}},
		{"a problem keeps the credential", []lease.Event{credential("1"), problem(reason.STSThrottled)}, []string{"1", "problem g STS_THROTTLED"}},
		{"a revocation takes back what waits", []lease.Event{credential("1"), problem(reason.STSThrottled), revoked("")}, []string{"revoked g GRANT_DELETED"}},
		{"a revocation comes before the next credential", []lease.Event{revoked(""), credential("1")}, []string{"revoked g GRANT_DELETED", "1"}},
		{"an unsent credential is not revoked but dropped", []lease.Event{credential("1"), revoked("1")}, nil},
		{"the revocation of a sent one does not touch the next", []lease.Event{credential("2"), revoked("1")}, []string{"revoked 1", "2"}},
		{"two revoked, the second unsent", []lease.Event{revoked("1"), credential("2"), revoked("2")}, []string{"revoked 1"}},
		{"two revoked", []lease.Event{revoked("1"), revoked("2")}, []string{"revoked 2"}},
		{"a revocation of all covers one of one", []lease.Event{revoked(""), revoked("1")}, []string{"revoked g GRANT_DELETED"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o outbox
			e := &entry{name: "g"}
			for _, event := range test.filed {
				o.file(e, event)
			}
			if got := drain(&o); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestOutboxOrder(t *testing.T) {
	o := outbox{heartbeat: true, reconnect: &Reconnect{}, complaint: &lease.Problem{Err: reason.New(reason.CredentialUnknown, "x")}}
	a, b := &entry{name: "a"}, &entry{name: "b"}
	o.file(a, lease.Event{Credential: &lease.Credential{ID: "a1"}})
	o.file(b, lease.Event{Credential: &lease.Credential{ID: "b1"}})
	o.file(a, lease.Event{Problem: &lease.Problem{Grant: "a", Err: reason.New(reason.STSThrottled, "x")}})
	o.welcome = true
	if o.pending() != 7 {
		t.Errorf("pending = %d, want 7", o.pending())
	}
	want := []string{"welcome", "a1", "b1", "problem a STS_THROTTLED", "problem  CREDENTIAL_UNKNOWN", "heartbeat", "reconnect"}
	if got := drain(&o); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A revocation of what the agent has is not lost because others follow before
// it is sent, of credentials that the agent never saw.
func TestRevocationsOfOneGrantCoalesce(t *testing.T) {
	revoke := func(id string) lease.Event { return lease.Event{Revoked: &lease.Revoked{CredentialID: id}} }
	for name, filed := range map[string][]lease.Event{
		"one that it never had, twice, after it": {revoke("a1"), {Credential: &lease.Credential{ID: "a2"}}, revoke("a2"), revoke("a2")},
		"one that it never had, before it":       {{Credential: &lease.Credential{ID: "a2"}}, revoke("a2"), revoke("a2"), revoke("a1")},
	} {
		t.Run(name, func(t *testing.T) {
			var o outbox
			e := &entry{name: "a"}
			e.has("a1", time.Time{})
			for _, event := range filed {
				o.file(e, event)
			}
			if l, ok := o.take(); !ok || l.Revoked == nil || l.Revoked.CredentialID != "a1" {
				t.Errorf("sent %+v", l.Message)
			}
		})
	}
}

// Whatever is filed and however slowly it is taken: it stays bounded, a
// credential that was revoked before it was sent never is, and in the end the
// agent knows the last word on each grant.
func FuzzOutbox(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 200)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var o outbox
		entries := [3]*entry{{name: "0"}, {name: "1"}, {name: "2"}}
		type truth struct{ latest, agent, lastID string }
		var truths [3]truth
		dead := map[string]bool{}
		read := func() bool {
			l, ok := o.take()
			if !ok {
				return false
			}
			if l.entry == nil {
				return true
			}
			w := &truths[l.entry.name[0]-'0']
			switch {
			case l.Credential != nil:
				if dead[l.Credential.ID] {
					t.Fatalf("%s was sent after it was revoked", l.Credential.ID)
				}
				w.agent = l.Credential.ID
				l.entry.has(w.agent, time.Time{})
			case l.Revoked != nil && (l.Revoked.CredentialID == "" || l.Revoked.CredentialID == w.agent):
				w.agent = ""
				l.entry.has("", time.Time{})
			}
			return true
		}
		for i, op := range ops {
			e, w := entries[int(op>>3)%3], &truths[int(op>>3)%3]
			switch op % 8 {
			case 0, 1:
				w.lastID = fmt.Sprint(e.name, "-", i)
				w.latest = w.lastID
				o.file(e, lease.Event{Credential: &lease.Credential{ID: w.lastID}})
			case 2:
				o.file(e, lease.Event{Problem: &lease.Problem{}})
			case 3:
				w.latest = ""
				dead[w.lastID] = true
				o.file(e, lease.Event{Revoked: &lease.Revoked{}})
			case 4:
				if w.lastID != "" {
					w.latest = ""
					dead[w.lastID] = true
					o.file(e, lease.Event{Revoked: &lease.Revoked{CredentialID: w.lastID}})
				}
			case 5:
				o.heartbeat = true
			default:
				read()
			}
			if n := o.pending(); n > 3*len(entries)+4 || len(o.queue) > len(entries) {
				t.Fatalf("%d messages wait, in a queue of %d", n, len(o.queue))
			}
		}
		for read() {
		}
		for i, w := range truths {
			// An agent may be left with an older credential where the newest was
			// revoked alone and unsent: nobody took the older one away.
			if w.latest != "" && w.agent != w.latest || w.agent != "" && dead[w.agent] {
				t.Errorf("grant %d: the agent has %q, the last word is %q", i, w.agent, w.latest)
			}
		}
	})
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Hour
	for i := range messageBurst {
		if !b.take(now) {
			t.Fatalf("message %d of the burst was refused", i)
		}
	}
	if b.take(now) {
		t.Fatal("the burst has no end")
	}
	for range 3 {
		now += messageEvery
		if !b.take(now) || b.take(now) {
			t.Fatal("not one message an interval after the burst")
		}
	}
	now += 2 * messageBurst * messageEvery
	n := 0
	for b.take(now) {
		n++
	}
	if n != messageBurst {
		t.Errorf("after a long rest the burst is %d, want %d", n, messageBurst)
	}
}
