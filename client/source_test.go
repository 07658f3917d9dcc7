package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

func TestFirstCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos", "videos"))
		config := broker.Config()
		config.Grants = []string{"photos"}
		source := start(t, config)
		wantState(t, source, "photos", client.ErrNoCredentialYet, "")
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c := mustCredential(t, source, "photos")
		if got := broker.Acknowledged(); !slices.Equal(got, []string{c.ID}) {
			t.Errorf("acknowledged %v, want %s", got, c.ID)
		}
		if only := mustCredential(t, source, ""); only != c {
			t.Errorf("without a name: %v", only)
		}
		wantState(t, source, "videos", client.ErrNotConfigured, "")
		if got := source.Grants(); !slices.Equal(got, config.Grants) {
			t.Errorf("grants %v", got)
		}
		status := source.Status()
		if !status.Connected || status.Identity.String() != "nightly@acme from agent nas-1" || status.Grants[0].Credential != c {
			t.Errorf("status %+v", status)
		}
	})
}

func TestAllGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos", "videos"))
		source := ready(t, broker)
		synctest.Wait()
		if got := source.Grants(); !slices.Equal(got, []string{"photos", "videos"}) {
			t.Fatalf("grants %v", got)
		}
		wantState(t, source, "", client.ErrAmbiguous, "")
		added := broker.Push("music", time.Hour)
		synctest.Wait()
		if got := mustCredential(t, source, "music"); got.ID != added.ID {
			t.Errorf("got %v, want %v", got, added)
		}
	})
}

// TestRenewals lets three days of pushes pass: there is never a moment without a
// good credential, and each push is told of.
func TestRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		<-source.Updated()
		for range 3 * 24 * 60 / 40 {
			for range 40 {
				pass(time.Minute)
				mustCredential(t, source, "photos")
			}
			pushed := broker.Push("photos", time.Hour)
			<-source.Updated()
			if got := mustCredential(t, source, "photos"); got.ID != pushed.ID {
				t.Fatalf("got %v, want %v", got, pushed)
			}
		}
		if broker.Logins() != 1 || len(broker.Subscriptions()) != 1 {
			t.Errorf("%d logins, %d streams", broker.Logins(), len(broker.Subscriptions()))
		}
	})
}

// TestUpdatedKeepsTheLast pushes faster than anybody listens.
func TestUpdatedKeepsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		var last client.Credential
		for range 10 {
			last = broker.Push("photos", time.Hour)
		}
		synctest.Wait()
		<-source.Updated()
		if got := mustCredential(t, source, "photos"); got.ID != last.ID {
			t.Errorf("got %v, want %v", got, last)
		}
		select {
		case <-source.Updated():
			t.Error("told twice of what was seen")
		default:
		}
	})
}

// TestOutage takes the broker away for longer than a credential lives.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		first := mustCredential(t, source, "photos")
		broker.Stop()
		for time.Now().Before(first.Expires) {
			if got := mustCredential(t, source, "photos"); got.ID != first.ID {
				t.Fatalf("got %v, want the last good one", got)
			}
			pass(time.Minute)
		}
		wantState(t, source, "photos", client.ErrExpired, "")
		pass(24 * time.Hour)
		if status := source.Status(); status.Connected || status.Err == nil || time.Until(status.RetryTime) > time.Minute {
			t.Errorf("status %+v", status)
		}
		broker.Start()
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if held := broker.Subscriptions()[1].Held; len(held) != 0 {
			t.Errorf("expired credentials are said to be held: %v", held)
		}
	})
}

// TestResume cuts the connection: the source comes back within seconds, without
// another login, and says what it holds.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		c := mustCredential(t, source, "photos")
		broker.Drop()
		pass(11 * time.Second)
		subscriptions := broker.Subscriptions()
		if broker.Streams() != 1 || len(subscriptions) != 2 {
			t.Fatalf("%d streams, %d subscriptions", broker.Streams(), len(subscriptions))
		}
		want := clienttest.Held{ID: c.ID, Grant: "photos", Expires: c.Expires}
		if got := subscriptions[1].Held; len(got) != 1 || got[0].ID != want.ID || got[0].Grant != want.Grant || !got[0].Expires.Equal(want.Expires) {
			t.Errorf("held %v, want %v", got, want)
		}
		if broker.Logins() != 1 {
			t.Errorf("%d logins", broker.Logins())
		}
		if got := mustCredential(t, source, "photos"); got.ID != c.ID {
			t.Errorf("got %v", got)
		}
	})
}

func TestReconnectAsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		broker.Reconnect(90 * time.Second)
		pass(89 * time.Second)
		if got := len(broker.Subscriptions()); got != 1 {
			t.Fatalf("came back too early: %d subscriptions", got)
		}
		mustCredential(t, source, "photos")
		pass(2 * time.Second)
		if got := len(broker.Subscriptions()); got != 2 {
			t.Fatalf("did not come back: %d subscriptions", got)
		}
		if status := source.Status(); !status.Connected {
			t.Errorf("status %+v", status)
		}
	})
}

// TestReconnectLeaves lets a broker ask for a reconnection and not end the
// stream: the source leaves by itself.
func TestReconnectLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		ready(t, broker)
		broker.Send(reconnect(time.Minute))
		pass(61 * time.Second)
		if got, open := len(broker.Subscriptions()), broker.Streams(); got != 2 || open != 1 {
			t.Fatalf("%d subscriptions, %d streams", got, open)
		}
	})
}

// TestHalfOpen makes the broker's host vanish without a word.
func TestHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		pass(time.Minute)
		broker.Hang()
		pass(30 * time.Second)
		if source.Status().Connected {
			t.Fatal("not noticed within thirty seconds")
		}
		mustCredential(t, source, "photos")
		broker.Resume()
		pass(2 * time.Minute)
		if !source.Status().Connected {
			t.Fatal("did not come back")
		}
	})
}

// TestSilence lets the connection live while the stream is dead.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithHeartbeat(20*time.Second))
		source := ready(t, broker)
		pass(10 * time.Minute)
		if got := len(broker.Subscriptions()); got != 1 {
			t.Fatalf("%d subscriptions with heartbeats", got)
		}
		broker.Mute(true)
		pass(59 * time.Second)
		if !source.Status().Connected {
			t.Fatal("gave up before three heartbeats were missed")
		}
		pass(12 * time.Second)
		if got := len(broker.Subscriptions()); got != 2 {
			t.Fatalf("%d subscriptions after a silence", got)
		}
	})
}

// TestFailover takes one replica after the other away: by a stop, and by silence.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(t, clienttest.InMemory())
		b := clienttest.New(t, clienttest.InMemory(), clienttest.AsReplicaOf(a))
		config := a.Config()
		config.Brokers = []string{"a.test:1", "b.test:2"}
		config.ServerName = clienttest.Host
		config.Dial = dialers(map[string]*clienttest.Broker{"a.test:1": a, "b.test:2": b})
		wantBroker := func(source *client.Source, address string) {
			t.Helper()
			if got := source.Status(); got.Broker != address || !got.Connected {
				t.Errorf("connected to %s (%v), want %s: %v", got.Broker, got.Connected, address, got.Err)
			}
		}
		a.Stop()
		source := start(t, config)
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantBroker(source, "b.test:2") // and that at once
		a.Start()
		b.Stop()
		// Ten seconds to rest, two more before the login that it takes.
		pass(13 * time.Second)
		wantBroker(source, "a.test:1")
		b.Start()
		a.Hang()
		// Thirty seconds to notice, ten to rest, twenty to find out that the
		// first one does not let us in, two before another login.
		pass(65 * time.Second)
		wantBroker(source, "b.test:2")
		a.Resume()
		if b.Logins() != 2 || a.Logins() != 1 {
			t.Errorf("%d and %d logins", a.Logins(), b.Logins())
		}
	})
}

// TestGarbledTransport connects to something that is no broker.
func TestGarbledTransport(t *testing.T) {
	for name, says := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n": "does not look like a TLS handshake",
		"":                                 "EOF",
	} {
		synctest.Test(t, func(t *testing.T) {
			config := clienttest.New(t, clienttest.InMemory()).Config()
			config.Dial = func(context.Context, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					_, _ = theirs.Read(make([]byte, 4096))
					_, _ = io.WriteString(theirs, name)
					_ = theirs.Close()
				}()
				return ours, nil
			}
			source := start(t, config)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := source.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %v", name, err)
			}
		})
	}
}

// TestNoFailoverAfterRefusal: a wrong password is not tried at every broker.
func TestNoFailoverAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.RefuseLogin(&client.Error{Reason: client.ReasonLoginRejected, Message: "no"})
		config := broker.Config()
		config.Brokers = []string{"a.test:1", "b.test:2"}
		config.ServerName = clienttest.Host
		source := start(t, config)
		if err := source.Wait(t.Context()); client.ReasonOf(err) != client.ReasonLoginRejected {
			t.Fatal(err)
		}
		if got := broker.RefusedLogins(); got != 1 {
			t.Errorf("%d logins", got)
		}
	})
}

func TestRevocation(t *testing.T) {
	for _, reason := range []client.Reason{client.ReasonGrantDeleted, client.ReasonCredentialRevoked, client.ReasonGrantDisabled} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos", "videos"))
				source := ready(t, broker)
				synctest.Wait()
				broker.Revoke("photos", reason)
				synctest.Wait()
				wantState(t, source, "photos", client.ErrRevoked, reason)
				mustCredential(t, source, "videos")
				var failed *client.CredentialError
				if err := source.Wait(t.Context(), "photos"); !errors.As(err, &failed) || failed.Cause.Reason != reason {
					t.Errorf("wait: %v", err)
				}
				broker.Push("photos", time.Hour)
				synctest.Wait()
				mustCredential(t, source, "photos")
			})
		})
	}
}

// TestRevocationOfAnother: a revocation of a credential that was replaced
// already changes nothing.
func TestRevocationOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		broker.Send(revocation("photos", "018f0000-0000-7000-8000-000000000000"))
		synctest.Wait()
		mustCredential(t, source, "photos")
	})
}

// TestGrantChanged: its reason announces another credential, which Wait waits
// for.
func TestGrantChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		broker.Revoke("photos", client.ReasonGrantChanged)
		synctest.Wait()
		wantState(t, source, "photos", client.ErrRevoked, client.ReasonGrantChanged)
		go func() {
			pass(time.Second)
			broker.Push("photos", time.Hour)
		}()
		if err := source.Wait(t.Context(), "photos"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		c := mustCredential(t, source, "photos")
		broker.Problem("photos", client.Error{Reason: client.ReasonSTSThrottled, Message: "slow down"}, 10*time.Second)
		synctest.Wait()
		if got := mustCredential(t, source, "photos"); got.ID != c.ID {
			t.Errorf("got %v", got)
		}
		if got := client.ReasonOf(source.Status().Grants[0].Err); got != client.ReasonSTSThrottled {
			t.Errorf("status says %q", got)
		}
		pass(time.Hour)
		wantState(t, source, "photos", client.ErrExpired, client.ReasonSTSThrottled)
		broker.Push("photos", time.Hour)
		synctest.Wait()
		mustCredential(t, source, "photos")
		if err := source.Status().Grants[0].Err; err != nil {
			t.Errorf("status still says %v", err)
		}
	})
}

func TestUnknownGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		config := broker.Config()
		config.Grants = []string{"photos", "nothing"}
		source := start(t, config)
		if err := source.Wait(t.Context()); client.ReasonOf(err) != client.ReasonGrantUnknown {
			t.Fatal(err)
		}
		wantState(t, source, "nothing", client.ErrNoCredentialYet, client.ReasonGrantUnknown)
		if err := source.Wait(t.Context(), "photos"); err != nil {
			t.Error(err)
		}
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		c := mustCredential(t, source, "photos")
		if err := source.Refused("photos", strings.Repeat("InvalidAccessKeyId", 10)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		reports := broker.Reports()
		if len(reports) != 1 || reports[0].CredentialID != c.ID || len(reports[0].ErrorCode) != 64 {
			t.Fatalf("reports %v", reports)
		}
		if got := mustCredential(t, source, "photos"); got.ID == c.ID {
			t.Error("it was not replaced")
		}
		if err := source.Refused("videos", "ExpiredToken"); !errors.Is(err, client.ErrNoCredentialYet) {
			t.Errorf("of a grant without a credential: %v", err)
		}
	})
}

// TestRefusedWhileAway: a report outlives the lack of a stream.
func TestRefusedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		broker.Stop()
		synctest.Wait()
		if err := source.Refused("photos", "ExpiredToken"); err != nil {
			t.Fatal(err)
		}
		broker.Start()
		pass(time.Minute)
		if got := broker.Reports(); len(got) != 1 || got[0].ErrorCode != "ExpiredToken" {
			t.Errorf("reports %v", got)
		}
	})
}

// TestClockSkew: this machine's clock is an hour behind, or ahead.
func TestClockSkew(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				broker.SetClock(ahead)
				source := ready(t, broker)
				c := mustCredential(t, source, "photos")
				if left := time.Until(c.Expires); left != time.Hour {
					t.Errorf("by this machine's clock it has %v left", left)
				}
				if got := source.Status().Skew; got != -ahead {
					t.Errorf("skew %v", got)
				}
				// The broker is told the time as it said it.
				broker.Drop()
				pass(11 * time.Second)
				if held := broker.Subscriptions()[1].Held; len(held) != 1 || !held[0].Expires.Equal(c.Expires.Add(ahead)) {
					t.Errorf("held %v", held)
				}
				pass(time.Hour)
				if _, err := source.Credential("photos"); !errors.Is(err, client.ErrExpired) {
					t.Errorf("after an hour: %v", err)
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		waited := make(chan error)
		go func() { waited <- source.Wait(t.Context(), "videos") }()
		synctest.Wait()
		for range 2 {
			if err := source.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-waited; !errors.Is(err, client.ErrClosed) {
			t.Errorf("wait: %v", err)
		}
		wantState(t, source, "photos", client.ErrClosed, "")
		if err := source.Refused("photos", "ExpiredToken"); !errors.Is(err, client.ErrClosed) {
			t.Errorf("refused: %v", err)
		}
	})
}

func TestContextEndsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		ctx, cancel := context.WithCancel(t.Context())
		source, err := client.New(ctx, broker.Config())
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		wantState(t, source, "photos", client.ErrClosed, "")
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.Stop()
		source := start(t, broker.Config())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := source.Wait(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrNoCredentialYet) {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("it does not say what was in the way: %v", err)
		}
	})
}
