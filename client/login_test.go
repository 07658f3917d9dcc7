package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

// TestSessionEnds: for each of these reasons the source logs in again soon, and
// once.
func TestSessionEnds(t *testing.T) {
	for _, reason := range []client.Reason{
		client.ReasonTokenExpired, client.ReasonTokenInvalid, client.ReasonTokenCertificateMismatch,
		client.ReasonSessionEnded, client.ReasonPasswordChanged,
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				source := ready(t, broker)
				for logins := 2; logins < 5; logins++ {
					pass(2 * time.Hour)
					broker.Push("photos", 3*time.Hour)
					synctest.Wait()
					broker.EndSessions(reason)
					pass(3 * time.Second)
					if got := broker.Logins(); got != logins {
						t.Fatalf("%d logins, want %d", got, logins)
					}
					if !source.Status().Connected {
						t.Fatal("not connected")
					}
					mustCredential(t, source, "photos")
				}
			})
		})
	}
}

// TestNewPasswordAsTold: who shares a login that got another password is told
// when to log in again, and does so no sooner and little later.
func TestNewPasswordAsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		pass(10 * time.Minute)
		broker.EndStreams(&client.Error{Reason: client.ReasonPasswordChanged, Message: "log in again", RetryAfter: time.Minute})
		pass(time.Minute - time.Second)
		status := source.Status()
		if status.Connected || broker.Logins() != 1 || client.ReasonOf(status.Err) != client.ReasonPasswordChanged {
			t.Errorf("before its time: %d logins, %+v", broker.Logins(), status)
		}
		if wait := time.Until(status.RetryTime); wait < time.Second || wait > 3*time.Second {
			t.Errorf("it says that it logs in after %v", wait)
		}
		mustCredential(t, source, "photos")
		pass(4 * time.Second)
		if !source.Status().Connected || broker.Logins() != 2 {
			t.Errorf("after its time: connected %v, %d logins", source.Status().Connected, broker.Logins())
		}
	})
}

// TestKeptTokenRefused: a token that went bad while the source was away costs
// one refused stream.
func TestKeptTokenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		broker.Drop()
		broker.EndSessions(client.ReasonSessionEnded)
		pass(13 * time.Second) // ten to rest, and two before another login
		if !source.Status().Connected || broker.Logins() != 2 {
			t.Errorf("connected %v after %d logins", source.Status().Connected, broker.Logins())
		}
	})
}

// TestExpiredTokenIsNotSent: the source knows when its token ends.
func TestExpiredTokenIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithSession(time.Hour))
		source := ready(t, broker)
		pass(2 * time.Hour)
		broker.Drop()
		pass(11 * time.Second)
		if !source.Status().Connected || broker.Logins() != 2 {
			t.Errorf("connected %v after %d logins", source.Status().Connected, broker.Logins())
		}
	})
}

// TestFreshTokenRefused: a broker that takes no token, not even a fresh one, is
// not hammered with logins.
func TestFreshTokenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.RefuseStreams(&client.Error{Reason: client.ReasonTokenInvalid, Message: "no"})
		source := start(t, broker.Config())
		pass(time.Hour)
		if got := broker.Logins(); got < 60 || got > 200 {
			t.Errorf("%d logins in an hour", got)
		}
		broker.RefuseStreams(nil)
		if err := source.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		config := broker.Config()
		right := broker.Password()
		broker.SetPassword("another")
		config.Password = func(context.Context) (string, error) { return right, nil }
		source := start(t, config)
		var failed *client.CredentialError
		if err := source.Wait(t.Context()); !errors.As(err, &failed) || failed.Cause == nil || failed.Cause.Reason != client.ReasonLoginRejected || failed.Cause.Transient {
			t.Fatalf("wait: %v", err)
		}
		pass(time.Hour)
		if got := broker.RefusedLogins(); got < 12 || got > 25 {
			t.Errorf("%d logins in an hour", got)
		}
		// The provider sets the password that the agent has.
		broker.SetPassword(right)
		pass(6 * time.Minute)
		mustCredential(t, source, "photos")
	})
}

// TestRefusedAfterwards: a permanent refusal leaves the last good credential.
func TestRefusedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		source := ready(t, broker)
		disabled := &client.Error{Reason: client.ReasonUserDisabled, Message: "ask the provider"}
		broker.RefuseStreams(disabled)
		broker.EndStreams(disabled)
		synctest.Wait()
		status := source.Status()
		if status.Connected || client.ReasonOf(status.Err) != client.ReasonUserDisabled {
			t.Fatalf("status %+v", status)
		}
		if wait := time.Until(status.RetryTime); wait < 2*time.Minute || wait > 5*time.Minute {
			t.Errorf("tries again after %v", wait)
		}
		// What the provider has taken away is not used to its end.
		wantState(t, source, "photos", client.ErrRevoked, client.ReasonUserDisabled)
		broker.RefuseStreams(nil)
		pass(5 * time.Minute)
		mustCredential(t, source, "photos")
	})
}

// TestRefusedMeanwhile: what was taken away while the source was not connected is
// noticed at the next login, and what only failed meanwhile is not.
func TestRefusedMeanwhile(t *testing.T) {
	for reason, state := range map[client.Reason]error{
		client.ReasonUserDisabled: client.ErrRevoked, client.ReasonTenantDisabled: client.ErrRevoked, client.ReasonAgentDisabled: client.ErrRevoked,
		client.ReasonCertificateRevoked: client.ErrRevoked, client.ReasonServiceUnknown: client.ErrRevoked, client.ReasonDelegationDenied: client.ErrRevoked,
		client.ReasonLoginRejected: nil, client.ReasonSTSUnavailable: nil, client.ReasonInternal: nil,
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				source := ready(t, broker)
				broker.RefuseLogin(&client.Error{Reason: reason, Message: "no"})
				broker.EndSessions(client.ReasonSessionEnded)
				pass(time.Minute)
				if state == nil {
					mustCredential(t, source, "photos")
					return
				}
				wantState(t, source, "photos", state, reason)
			})
		})
	}
}

// TestRetryInfo: the source waits as told, and a little longer.
func TestRetryInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		broker.RefuseLogin(&client.Error{Reason: client.ReasonLoginBusy, Message: "later", RetryAfter: 30 * time.Second})
		source := start(t, broker.Config())
		synctest.Wait()
		var failed *client.Error
		if status := source.Status(); !errors.As(status.Err, &failed) || !failed.Transient || failed.RetryAfter != 30*time.Second {
			t.Fatalf("status %+v", status)
		}
		pass(30*time.Second - time.Nanosecond)
		if got := broker.RefusedLogins(); got != 1 {
			t.Fatalf("%d logins before the time", got)
		}
		broker.RefuseLogin(nil)
		pass(time.Second)
		mustCredential(t, source, "photos")
	})
}

func TestPasswordFunction(t *testing.T) {
	for name, give := range map[string]func(context.Context) (string, error){
		"fails":    func(context.Context) (string, error) { return "", errors.New("keyring is locked") },
		"is empty": func(context.Context) (string, error) { return "", nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := clienttest.New(t, clienttest.InMemory())
				config := broker.Config()
				config.Password = give
				source := start(t, config)
				if err := source.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "no password") {
					t.Errorf("wait: %v", err)
				}
				if broker.Logins()+broker.RefusedLogins() != 0 {
					t.Error("it logged in")
				}
			})
		})
	}
}

// TestForeignCertificates: neither side's wrong certificate is a matter of
// waiting, and each error says whose it is.
func TestForeignCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		change func(config *client.Config, other client.Config)
		says   string
		as     func(error) bool
	}{
		"the broker's": {
			func(config *client.Config, other client.Config) { config.TLS.RootCAs = other.TLS.RootCAs },
			"broker's certificate is of another authority",
			func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) },
		},
		"the broker's name": {
			func(config *client.Config, _ client.Config) { config.ServerName = "elsewhere.test" },
			"broker's certificate cannot be verified",
			func(err error) bool { return errors.As(err, new(x509.HostnameError)) },
		},
		"ours": {
			func(config *client.Config, other client.Config) {
				config.TLS.Certificates = other.TLS.Certificates
			},
			"refused this agent's certificate",
			func(err error) bool { return err != nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker, other := clienttest.New(t, clienttest.InMemory()), clienttest.New(t, clienttest.InMemory())
				config := broker.Config()
				c.change(&config, other.Config())
				source := start(t, config)
				err := source.Wait(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.says) || !c.as(err) {
					t.Errorf("wait: %v", err)
				}
				if _, err := client.Fetch(t.Context(), config, 0); err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("fetch: %v", err)
				}
			})
		})
	}
}

// TestRenewedCertificate replaces the files: the next connection presents the
// new certificate and, because tokens are bound, logs in with it.
func TestRenewedCertificate(t *testing.T) {
	broker := clienttest.New(t)
	files := broker.Files(t.TempDir())
	config := broker.Config()
	config.TLS = nil
	config.CAFile, config.CertFile, config.KeyFile = files.CA, files.Cert, files.Key
	source := start(t, config)
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := source.Status().Identity.CertificateSerial
	files.WriteCertificate(t, broker.NewCertificate())
	broker.Reconnect(0)
	if err := awaitConnected(t, source, before); err != nil {
		t.Fatal(err)
	}
	if got := broker.Logins(); got < 2 {
		t.Errorf("%d logins", got)
	}
}

// awaitConnected waits for a stream with another certificate.
func awaitConnected(t *testing.T, source *client.Source, before string) error {
	t.Helper()
	connected := make(chan struct{}, 16)
	stop := source.Watch(func(e client.Event) {
		if e.Kind == client.EventConnected && e.Identity.CertificateSerial != before {
			connected <- struct{}{}
		}
	})
	defer stop()
	select {
	case <-connected:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("not connected")
	}
}

func TestOneCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory(), clienttest.WithGrants("photos", "videos"))
		config := broker.Config()
		fetched, err := client.Fetch(t.Context(), config, 0)
		if err != nil || len(fetched) != 2 || fetched[0].Grant != "photos" || fetched[1].Grant != "videos" {
			t.Errorf("fetch: %v, %v", fetched, err)
		}
		identity, now, err := client.WhoAmI(t.Context(), config)
		if err != nil || identity.SPIFFEID != clienttest.AgentID || !now.Equal(time.Now()) {
			t.Errorf("who am I: %v, %v, %v", identity, now, err)
		}
		grants, err := client.ListGrants(t.Context(), config)
		if err != nil || len(grants) != 2 || grants[0].Name != "photos" || grants[0].Lifetime != time.Hour || grants[0].Access != "backup" {
			t.Errorf("grants: %v, %v", grants, err)
		}
		config.Grants = []string{"nothing"}
		_, err = client.Fetch(t.Context(), config, 0)
		var failed *client.Error
		if !errors.As(err, &failed) || failed.Reason != client.ReasonGrantUnknown || failed.Grant != "nothing" {
			t.Errorf("an unknown grant: %v", err)
		}
		config.Brokers = nil
		if _, err := client.Fetch(t.Context(), config, 0); err == nil || !strings.Contains(err.Error(), "no broker") {
			t.Errorf("without a broker: %v", err)
		}
	})
}

// TestFetchFailsOver: the first broker is away, the second answers.
func TestFetchFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := clienttest.New(t, clienttest.InMemory())
		config := broker.Config()
		config.Brokers = []string{"away.test:1", "here.test:2"}
		config.ServerName = clienttest.Host
		config.Dial = dialers(map[string]*clienttest.Broker{"here.test:2": broker})
		if _, err := client.Fetch(t.Context(), config, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestConfigProblems(t *testing.T) {
	good := clienttest.New(t, clienttest.InMemory()).Config()
	for name, c := range map[string]struct {
		change func(*client.Config)
		says   []string
	}{
		"all at once": {func(c *client.Config) { *c = client.Config{} }, []string{"no broker", "login", "no password", "no client certificate"}},
		"no port":     {func(c *client.Config) { c.Brokers = []string{"broker"} }, []string{"host:port"}},
		"no host":     {func(c *client.Config) { c.Brokers = []string{":7443"} }, []string{"no host"}},
		"odd port":    {func(c *client.Config) { c.Brokers = []string{"broker:70000"} }, []string{"65535"}},
		"login without tenant": {
			func(c *client.Config) { c.Login = "nightly" }, []string{"login@tenant"},
		},
		"login with colon":     {func(c *client.Config) { c.Login = "a:b@acme" }, []string{"login@tenant"}},
		"login with two at":    {func(c *client.Config) { c.Login = "a@b@acme" }, []string{"login@tenant"}},
		"login with a newline": {func(c *client.Config) { c.Login = "a\nb@acme" }, []string{"login@tenant"}},
		"grant name":           {func(c *client.Config) { c.Grants = []string{"Photos"} }, []string{"a-z"}},
		"grant twice":          {func(c *client.Config) { c.Grants = []string{"a", "a"} }, []string{"twice"}},
		"many grants":          {func(c *client.Config) { c.Grants = make([]string, 101) }, []string{"at most 100"}},
		"client":               {func(c *client.Config) { c.Client = strings.Repeat("x", 129) }, []string{"at most 128"}},
		"no such file":         {func(c *client.Config) { c.CAFile = "/nonexistent/ca.pem" }, []string{"authority: open /nonexistent/ca.pem"}},
		"key without certificate": {
			func(c *client.Config) { c.KeyFile = "agent.key" }, []string{"both its file and its key's"},
		},
		"certificate file": {
			func(c *client.Config) { c.CertFile, c.KeyFile = "/nonexistent/a.pem", "/nonexistent/a.key" },
			[]string{"client certificate /nonexistent/a.pem"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			config.TLS = &tls.Config{RootCAs: good.TLS.RootCAs, Certificates: good.TLS.Certificates}
			c.change(&config)
			source, err := client.New(t.Context(), config)
			if err == nil {
				t.Fatal(source.Close())
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v does not say %q", err, says)
				}
			}
		})
	}
}
