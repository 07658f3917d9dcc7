package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// journal collects events. Watch calls it on the source's goroutine.
type journal struct {
	mu     sync.Mutex
	events []client.Event
}

func (j *journal) add(e client.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

func (j *journal) kinds() []client.EventKind {
	j.mu.Lock()
	defer j.mu.Unlock()
	var kinds []client.EventKind
	for _, e := range j.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func (j *journal) last() client.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events[len(j.events)-1]
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		var all, late journal
		stop := source.Watch(all.add)
		if got, want := all.kinds(), []client.EventKind{client.EventConnected, client.EventCredential}; !slices.Equal(got, want) {
			t.Fatalf("the present: %v, want %v", got, want)
		}
		broker.Push("photos", time.Hour)
		broker.Problem("photos", client.Error{Reason: client.ReasonSTSUnavailable, Message: "down"}, time.Minute)
		broker.Revoke("photos", client.ReasonGrantDisabled)
		synctest.Wait()
		source.Watch(late.add)
		broker.Reconnect(time.Minute)
		pass(2 * time.Minute)
		want := []client.EventKind{
			client.EventConnected, client.EventCredential, // the present
			client.EventCredential, client.EventProblem, client.EventRevocation,
			client.EventReconnect, client.EventDisconnected, client.EventConnected,
			client.EventProblem, // the grant is still disabled
		}
		if got := all.kinds(); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		want = append([]client.EventKind{client.EventConnected, client.EventRevocation}, want[5:]...)
		if got := late.kinds(); !slices.Equal(got, want) {
			t.Errorf("later: got  %v\nwant %v", got, want)
		}
		stop()
		broker.Push("photos", time.Hour)
		synctest.Wait()
		if got := len(all.kinds()); got != 9 {
			t.Errorf("told after stop: %v", all.kinds()[9:])
		}
	})
}

func TestEventLines(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	refused := &client.Error{Reason: client.ReasonLoginRejected, Message: "the login or the password is wrong"}
	for want, event := range map[string]client.Event{
		"connected to b:1 as nightly@acme from agent nas-1": {
			Kind: client.EventConnected, Broker: "b:1", Identity: client.Identity{Login: "nightly", Tenant: "acme", Agent: "nas-1"},
		},
		"credential photos ASIA1 until 2026-11-23T12:00:00Z for s3://b/p/ (backup)": {
			Kind: client.EventCredential, Credential: client.Credential{
				Grant: "photos", AccessKeyID: "ASIA1", Expires: now, Access: "backup",
				Target: client.Target{Bucket: "b", Prefix: "p/"},
			},
		},
		"problem with photos: STS_THROTTLED: slow; the broker tries again at 2026-11-23T12:00:00Z; there is no credential": {
			Kind: client.EventProblem, Grant: "photos", RetryTime: now,
			Err: &client.Error{Reason: client.ReasonSTSThrottled, Message: "slow", Transient: true},
		},
		"problem with the stream: LOGIN_REJECTED: the login or the password is wrong; the broker does not try again until something changes; the last credential is good until 2026-11-23T12:00:00Z": {
			Kind: client.EventProblem, GoodUntil: now, Err: refused,
		},
		"revoked photos: LOGIN_REJECTED: the login or the password is wrong": {
			Kind: client.EventRevocation, Grant: "photos", Err: refused,
		},
		"the broker is shutting down; connecting again at 2026-11-23T12:00:00Z": {
			Kind: client.EventReconnect, RetryTime: now,
		},
		"disconnected from b:1: INTERNAL: ask (request id r1); connecting again at 2026-11-23T12:00:00Z": {
			Kind: client.EventDisconnected, Broker: "b:1", RetryTime: now,
			Err: &client.Error{Reason: client.ReasonInternal, Message: "ask", RequestID: "r1"},
		},
		"something": {Kind: "something"},
	} {
		if got := event.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestGarbage sends what no broker should. The last good credential stays in use
// whatever comes.
func TestGarbage(t *testing.T) {
	good := func(change func(*stokerv1.Credential)) *stokerv1.StreamCredentialsResponse {
		c := &stokerv1.Credential{
			Id: "018f0000-0000-7000-8000-000000000001", Grant: "photos",
			AccessKeyId: "ASIAGARBAGE", SecretAccessKey: "secret", SessionToken: "token",
			IssueTime:  timestamppb.New(time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)),
			ExpireTime: timestamppb.New(time.Date(2000, 1, 1, 1, 1, 0, 0, time.UTC)),
		}
		change(c)
		return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Credential{Credential: c}}
	}
	credentials := map[string]func(*stokerv1.Credential){
		"no id":               func(c *stokerv1.Credential) { c.Id = "" },
		"no access key":       func(c *stokerv1.Credential) { c.AccessKeyId = "" },
		"no secret key":       func(c *stokerv1.Credential) { c.SecretAccessKey = "" },
		"no session token":    func(c *stokerv1.Credential) { c.SessionToken = "" },
		"newline in a key":    func(c *stokerv1.Credential) { c.SecretAccessKey = "a\n[other]" },
		"no grant":            func(c *stokerv1.Credential) { c.Grant = "" },
		"no expiry":           func(c *stokerv1.Credential) { c.ExpireTime = nil },
		"no issue time":       func(c *stokerv1.Credential) { c.IssueTime = nil },
		"expiry out of range": func(c *stokerv1.Credential) { c.ExpireTime.Seconds = 1 << 60 },
		"ends before it began": func(c *stokerv1.Credential) {
			c.ExpireTime, c.IssueTime = c.IssueTime, c.ExpireTime
		},
		"of another grant": func(c *stokerv1.Credential) { c.Grant = "videos" },
		"older": func(c *stokerv1.Credential) {
			c.IssueTime = timestamppb.New(time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC))
		},
	}
	for name, change := range credentials {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				config := broker.Config()
				config.Grants = []string{"photos"}
				source := start(t, config)
				if err := source.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				before := mustCredential(t, source, "photos")
				var seen journal
				source.Watch(seen.add)
				broker.Send(good(change))
				synctest.Wait()
				if e := seen.last(); e.Kind != client.EventProblem || !strings.Contains(e.Err.Error(), "unusable credential") {
					t.Errorf("told of %v", e)
				}
				if got := mustCredential(t, source, "photos"); got != before {
					t.Errorf("got %v", got)
				}
				if got := broker.Acknowledged(); len(got) != 1 {
					t.Errorf("acknowledged %v", got)
				}
				broker.Send(good(func(*stokerv1.Credential) {}))
				synctest.Wait()
				if got := mustCredential(t, source, "photos"); got.AccessKeyID != "ASIAGARBAGE" {
					t.Errorf("a good one afterwards is not used: %v", got)
				}
			})
		})
	}
	messages := map[string]*stokerv1.StreamCredentialsResponse{
		"nothing":                {},
		"a second welcome":       {Message: &stokerv1.StreamCredentialsResponse_Welcome{Welcome: &stokerv1.Welcome{}}},
		"an empty problem":       {Message: &stokerv1.StreamCredentialsResponse_Problem{}},
		"a problem without more": {Message: &stokerv1.StreamCredentialsResponse_Problem{Problem: &stokerv1.Problem{}}},
		"an empty revocation":    {Message: &stokerv1.StreamCredentialsResponse_Revocation{Revocation: &stokerv1.Revocation{}}},
		"an empty heartbeat":     {Message: &stokerv1.StreamCredentialsResponse_Heartbeat{}},
		"an empty reconnect":     {Message: &stokerv1.StreamCredentialsResponse_Reconnect{}},
		"a field of tomorrow":    unknownField(t),
	}
	for name, message := range messages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				source := ready(t, broker)
				broker.Send(message)
				pass(20 * time.Second)
				mustCredential(t, source, "photos")
				if !source.Status().Connected {
					t.Errorf("not connected: %v", source.Status().Err)
				}
			})
		})
	}
}

func unknownField(t *testing.T) *stokerv1.StreamCredentialsResponse {
	t.Helper()
	m := &stokerv1.StreamCredentialsResponse{}
	if err := proto.Unmarshal([]byte("\x92\x3f\x03new"), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCanary: neither the password nor the access token nor a secret of a
// credential turns up where it might be kept.
func TestCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.SetPassword("CANARY-password")
		var log bytes.Buffer
		config := broker.Config()
		config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		source := start(t, config)
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var seen journal
		source.Watch(seen.add)
		c := mustCredential(t, source, "photos")
		secrets := []string{"CANARY", c.SecretAccessKey, c.SessionToken}
		broker.Push("photos", time.Hour)
		broker.Drop()
		pass(time.Minute)
		broker.SetPassword("CANARY-changed")
		broker.EndSessions(client.ReasonPasswordChanged)
		pass(time.Minute)
		broker.RefuseLogin(&client.Error{Reason: client.ReasonLoginRejected, Message: "no"})
		broker.EndSessions(client.ReasonSessionEnded)
		pass(time.Minute)
		encoded, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if c2, err := source.Credential("photos"); err == nil {
			secrets = append(secrets, c2.SecretAccessKey, c2.SessionToken)
		}
		source.Close()
		config.Logger.Info("credential", "credential", c, "pointer", &c)
		texts := map[string]string{
			"log": log.String(), "json": string(encoded), "error": fmt.Sprint(source.Wait(t.Context())),
			"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", &c), "%#v": fmt.Sprintf("%#v", c), "%s": fmt.Sprintf("%s", []client.Credential{c}),
			"%x": fmt.Sprintf("%x", c), "%q": fmt.Sprintf("%q", c), "config": fmt.Sprintf("%#v", config),
			"events": fmt.Sprintf("%+v", seen.events), "source": fmt.Sprintf("%+v", source),
		}
		for where, text := range texts {
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s shows %q", where, secret)
				}
			}
		}
	})
}
