package client_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
)

// renewing opens a source that renews its certificate, which lives that long
// from now, and waits for its first credential.
func renewing(t *testing.T, broker *clienttest.Broker, life time.Duration) (*client.Source, client.Files, *journal) {
	t.Helper()
	broker.SetCertificateLife(life)
	files, _ := enroll(t, broker)
	config := kept(broker, files)
	config.Renew = true
	source := start(t, config)
	told := &journal{}
	source.Watch(told.add)
	if err := source.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return source, files, told
}

func inMemory(t *testing.T) *clienttest.Broker {
	t.Helper()
	return clienttest.New(t, clienttest.InMemory(), clienttest.WithEnrollment(), clienttest.WithHeartbeat(time.Minute), clienttest.WithLifetime(100*24*time.Hour))
}

// count counts the events of a kind.
func (j *journal) count(kind client.EventKind) int {
	n := 0
	for _, k := range j.kinds() {
		if k == kind {
			n++
		}
	}
	return n
}

// awaitSigned waits, in the bubble's time, until that many certificates were
// signed and the stream is on the last.
func awaitSigned(t *testing.T, broker *clienttest.Broker, signed int, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := broker.Await(ctx, func(b *clienttest.Broker) bool { return b.SignedCertificates() >= signed }); err != nil {
		t.Fatalf("%d certificates signed: %v", broker.SignedCertificates(), err)
	}
	synctest.Wait()
}

// Certificate after certificate is renewed in its time, and the stream goes on
// with each: one login, the same credential, never a gap.
func TestCertificateRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		const life = 4 * time.Hour
		source, files, told := renewing(t, broker, life)
		credential := mustCredential(t, source, "photos")
		last, err := client.ReadCertificate(files)
		if err != nil {
			t.Fatal(err)
		}
		for n := 2; n <= 5; n++ {
			awaitSigned(t, broker, n, life)
			if part := float64(time.Since(last.NotBefore)) / float64(life); part < 0.61 || part > 0.72 || time.Now().Before(last.RenewTime) || time.Since(last.RenewTime) > 2*time.Minute {
				t.Errorf("renewed after %f of its life, at %v for %v", part, time.Now(), last.RenewTime)
			}
			now, err := client.ReadCertificate(files)
			if err != nil || now.Serial == last.Serial || !now.Expires.After(last.Expires) {
				t.Fatalf("the files have %v, %v", now, err)
			}
			status := source.Status()
			if !status.Connected || status.Identity.CertificateSerial != now.Serial || status.Certificate != now || status.CertificateErr != nil {
				t.Errorf("status %+v", status)
			}
			if logins, streams := broker.Logins(), broker.Streams(); logins != n || streams != 1 {
				t.Errorf("%d logins, %d streams with certificate %d", logins, streams, n)
			}
			subscriptions := broker.Subscriptions()
			if s := subscriptions[len(subscriptions)-1]; len(subscriptions) != n || len(s.Held) != 1 || s.Held[0].ID != credential.ID {
				t.Errorf("subscription %+v", s)
			}
			if got := mustCredential(t, source, "photos"); got.ID != credential.ID {
				t.Errorf("another credential: %v", got)
			}
			last = now
		}
		if got := told.count(client.EventDisconnected); got != 0 {
			t.Errorf("disconnected %d times", got)
		}
		if got := told.count(client.EventCredential); got != 1 {
			t.Errorf("%d credentials", got)
		}
		if got := told.count(client.EventConnected); got != 5 {
			t.Errorf("connected %d times", got)
		}
		if got := told.count(client.EventCertificate); got != 4 {
			t.Errorf("told of %d certificates", got)
		}
	})
}

// A certificate that was renewed while the source was logging in with the old one
// is moved to as soon as there is a stream.
func TestRenewalBeforeTheWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		files, _ := enroll(t, broker)
		clienttest.Files{Cert: files.Certificate, Key: files.Key}.WriteCertificate(t, broker.AgentCertificate(clienttest.AgentID, time.Minute))
		config := kept(broker, files)
		config.Renew = true
		typed := make(chan struct{})
		config.Password = func(context.Context) (string, error) {
			<-typed
			return broker.Password(), nil
		}
		source := start(t, config)
		synctest.Wait()
		if got := broker.SignedCertificates(); got != 2 {
			t.Fatalf("%d certificates signed", got)
		}
		close(typed)
		synctest.Wait()
		if status := source.Status(); !status.Connected || status.Identity.CertificateSerial != status.Certificate.Serial || broker.Logins() != 2 {
			t.Errorf("status %+v after %d logins", status, broker.Logins())
		}
	})
}

// Each key is a new one, and only one is left.
func TestRenewalMakesANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		_, files, _ := renewing(t, broker, 2*time.Hour)
		seen := make(map[string]bool)
		for n := 2; n <= 4; n++ {
			key, err := os.ReadFile(files.Key)
			if err != nil || bytes.Count(key, []byte("BEGIN")) != 1 || seen[string(key)] {
				t.Errorf("key %d is old or not alone, %v", n-1, err)
			}
			seen[string(key)] = true
			awaitSigned(t, broker, n, 2*time.Hour)
		}
		if list := names(t, filepath.Dir(files.Key)); !slices.Equal(list, []string{".agent.key.lock", "agent.key", "agent.pem", "ca.pem"}) {
			t.Errorf("left: %v", list)
		}
	})
}

// A foreign PKI: the broker signs nothing, which is told once, and the files are
// only read from then on.
func TestNoAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		source, files, told := renewing(t, broker, 3*time.Hour)
		broker.RefuseCertificates(&client.Error{Reason: client.ReasonNoAuthority, Message: "get it from your PKI"})
		asked := broker.AskedCertificates()
		pass(150 * time.Minute)
		if got := broker.AskedCertificates() - asked; got != 1 {
			t.Errorf("asked %d times", got)
		}
		status := source.Status()
		if client.ReasonOf(status.CertificateErr) != client.ReasonNoAuthority || !status.Certificate.RenewTime.IsZero() || !status.Connected {
			t.Errorf("status %+v", status)
		}
		before := told.count(client.EventCertificate)
		other := broker.AgentCertificate(clienttest.AgentID, 4*time.Hour)
		clienttest.Files{Cert: files.Certificate, Key: files.Key}.WriteCertificate(t, other)
		pass(time.Minute)
		synctest.Wait()
		status = source.Status()
		if !status.Connected || status.Identity.CertificateSerial != status.Certificate.Serial || status.CertificateErr != nil || broker.Logins() != 2 {
			t.Errorf("status %+v after %d logins", status, broker.Logins())
		}
		if got := told.count(client.EventCertificate) - before; got != 1 {
			t.Errorf("told %d times", got)
		}
		// It complains again before the end, and at it.
		pass(225 * time.Minute)
		if err := source.Status().CertificateErr; err == nil || !strings.Contains(err.Error(), "ends soon") {
			t.Errorf("before the end: %v", err)
		}
		pass(15 * time.Minute)
		if err := source.Status().CertificateErr; err == nil || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("at the end: %v", err)
		}
		if got := told.count(client.EventCertificate) - before; got != 3 {
			t.Errorf("told %d times", got)
		}
		if got := broker.AskedCertificates() - asked; got != 1 {
			t.Errorf("asked %d times in the end", got)
		}
	})
}

// A source that may not renew follows the files.
func TestFilesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		files, _ := enroll(t, broker)
		source := start(t, kept(broker, files))
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		write := clienttest.Files{Cert: files.Certificate, Key: files.Key}
		for logins := 2; logins < 5; logins++ {
			write.WriteCertificate(t, broker.NewCertificate())
			if logins == 4 {
				source.CheckCertificate()
			} else {
				pass(time.Minute)
			}
			synctest.Wait()
			status := source.Status()
			if !status.Connected || broker.Logins() != logins || status.Identity.CertificateSerial != status.Certificate.Serial {
				t.Errorf("status %+v after %d logins, want %d", status, broker.Logins(), logins)
			}
		}
		// What is half written, or of no use, changes nothing.
		for _, garbage := range []string{"", "-----BEGIN", "x"} {
			if err := os.WriteFile(files.Certificate, []byte(garbage), 0o600); err != nil {
				t.Fatal(err)
			}
			pass(2 * time.Minute)
			if status := source.Status(); !status.Connected || status.CertificateErr == nil || broker.Logins() != 4 {
				t.Errorf("%q: status %+v", garbage, status)
			}
		}
		write.WriteCertificate(t, broker.NewCertificate())
		pass(time.Minute)
		synctest.Wait()
		if status := source.Status(); !status.Connected || status.CertificateErr != nil || broker.Logins() != 5 || broker.AskedCertificates() != 1 {
			t.Errorf("status %+v after %d logins", status, broker.Logins())
		}
	})
}

// The stream stays on the old certificate until a login with the new one works.
func TestNewCertificateRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker, other := inMemory(t), inMemory(t)
		files, first := enroll(t, broker)
		source := start(t, kept(broker, files))
		told := &journal{}
		source.Watch(told.add)
		if err := source.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		write := clienttest.Files{Cert: files.Certificate, Key: files.Key}
		stays := func(why string) {
			t.Helper()
			pass(20 * time.Minute)
			status := source.Status()
			if !status.Connected || status.Identity.CertificateSerial != first.Serial || status.CertificateErr == nil || !strings.Contains(status.CertificateErr.Error(), why) {
				t.Errorf("status %+v", status)
			}
			mustCredential(t, source, "photos")
		}
		write.WriteCertificate(t, other.NewCertificate())
		stays("refused this agent's certificate")
		write.WriteCertificate(t, broker.NewCertificate())
		broker.RefuseLogin(&client.Error{Reason: client.ReasonLoginBusy, Message: "later", RetryAfter: time.Minute})
		stays("LOGIN_BUSY")
		if got := broker.RefusedLogins(); got < 10 || got > 20 {
			t.Errorf("%d logins in twenty minutes", got)
		}
		broker.RefuseLogin(nil)
		pass(3 * time.Minute)
		status := source.Status()
		if !status.Connected || status.Identity.CertificateSerial == first.Serial || status.CertificateErr != nil {
			t.Errorf("status %+v", status)
		}
		if got := told.count(client.EventDisconnected); got != 0 {
			t.Errorf("disconnected %d times", got)
		}
	})
}

// How failures are repeated depends on the broker's reason alone.
func TestRenewalRefused(t *testing.T) {
	const life = 8 * time.Hour
	for name, c := range map[string]struct {
		problem     *client.Error
		least, most int // in two hours, at whose end as little as a quarter of an hour may be left
	}{
		"transient":             {&client.Error{Reason: client.ReasonStorageUnavailable, Message: "down"}, 6, 60},
		"permanent":             {&client.Error{Reason: client.ReasonAgentDisabled, Message: "ask the provider"}, 6, 60},
		"told when to come":     {&client.Error{Reason: client.ReasonRateLimited, Message: "wait", RetryAfter: 50 * time.Minute}, 2, 5},
		"nothing of the broker": {&client.Error{Message: "no such service"}, 6, 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := inMemory(t)
				source, files, _ := renewing(t, broker, life)
				before, err := client.ReadCertificate(files)
				if err != nil {
					t.Fatal(err)
				}
				pass(time.Until(before.RenewTime) - time.Minute)
				broker.RefuseCertificates(c.problem)
				asked := broker.AskedCertificates()
				pass(2 * time.Hour)
				if got := broker.AskedCertificates() - asked; got < c.least || got > c.most {
					t.Errorf("asked %d times", got)
				}
				status := source.Status()
				if status.CertificateErr == nil || !strings.Contains(status.CertificateErr.Error(), "not renewed: "+c.problem.Message) || client.ReasonOf(status.CertificateErr) != c.problem.Reason {
					t.Errorf("it says %v", status.CertificateErr)
				}
				if now, err := client.ReadCertificate(files); err != nil || now != before || !status.Connected {
					t.Errorf("the files have %v, %v", now, err)
				}
				broker.RefuseCertificates(nil)
				awaitSigned(t, broker, 2, time.Hour)
				if status := source.Status(); status.CertificateErr != nil || status.Certificate.Serial == before.Serial {
					t.Errorf("status %+v", status)
				}
			})
		})
	}
}

// Answers that cannot be used replace nothing, and are not asked for all the
// time.
func TestRenewalUnusableAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		source, files, _ := renewing(t, broker, 3*time.Hour)
		before, err := client.ReadCertificate(files)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Until(before.RenewTime) - time.Minute)
		answers := tampered(t, broker)
		for name, c := range answers {
			broker.TamperCertificates(c.change)
			source.CheckCertificate()
			pass(2 * time.Minute)
			if err := source.Status().CertificateErr; err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		broker.TamperCertificates(nil)
		broker.SetCertificateLife(time.Minute)
		source.CheckCertificate()
		pass(time.Second)
		if err := source.Status().CertificateErr; err == nil || !strings.Contains(err.Error(), "no later than the old one") {
			t.Errorf("a shorter one: %v", err)
		}
		if now, err := client.ReadCertificate(files); err != nil || now != before {
			t.Errorf("the files have %v, %v", now, err)
		}
		if asked := broker.AskedCertificates(); asked > 4*len(answers) {
			t.Errorf("asked %d times", asked)
		}
	})
}

// The broker is away when the time comes: the agent keeps its certificate, and
// renews when the broker is back.
func TestRenewalOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		source, files, _ := renewing(t, broker, 4*time.Hour)
		before, err := client.ReadCertificate(files)
		if err != nil {
			t.Fatal(err)
		}
		broker.Stop()
		pass(190 * time.Minute)
		if err := source.Status().CertificateErr; err == nil {
			t.Error("nothing is said")
		}
		broker.Start()
		awaitSigned(t, broker, 2, time.Hour)
		pass(2 * time.Minute)
		if now, err := client.ReadCertificate(files); err != nil || now.Serial == before.Serial {
			t.Errorf("the files have %v, %v", now, err)
		}
		if status := source.Status(); !status.Connected || status.Identity.CertificateSerial == before.Serial {
			t.Errorf("status %+v", status)
		}
	})
}

// Two agents with one certificate, such as those of two users: one renews, both
// go on.
func TestTwoAgentsWithOneCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		first, files, _ := renewing(t, broker, 3*time.Hour)
		config := kept(broker, files)
		config.Renew = true
		second := start(t, config)
		for n := 2; n <= 4; n++ {
			awaitSigned(t, broker, n, 3*time.Hour)
			pass(5 * time.Minute)
			now, err := client.ReadCertificate(files)
			if err != nil || broker.SignedCertificates() != n {
				t.Errorf("%d certificates signed, %v", broker.SignedCertificates(), err)
			}
			for _, source := range []*client.Source{first, second} {
				if status := source.Status(); !status.Connected || status.Identity.CertificateSerial != now.Serial {
					t.Errorf("status %+v", status)
				}
			}
		}
	})
}

// Files that belong to somebody else are not replaced, which is told at the
// start.
func TestFilesThatCannotBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		broker.SetCertificateLife(time.Hour)
		files, before := enroll(t, broker)
		dir := t.TempDir()
		config := kept(broker, files)
		config.CertFile = filepath.Join(dir, "agent.pem")
		if err := os.Symlink(files.Certificate, config.CertFile); err != nil {
			t.Fatal(err)
		}
		config.Renew = true
		source := start(t, config)
		synctest.Wait()
		if status := source.Status(); status.CertificateErr == nil || !strings.Contains(status.CertificateErr.Error(), "no regular file") || !status.Certificate.RenewTime.IsZero() {
			t.Errorf("status %+v", status)
		}
		pass(50 * time.Minute)
		if now, err := client.ReadCertificate(files); err != nil || now != before || broker.AskedCertificates() != 1 {
			t.Errorf("the files have %v, %v", now, err)
		}
	})
}

// A certificate that has ended is not renewed; one that takes its place is
// noticed.
func TestCertificateEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		source, files, _ := renewing(t, broker, time.Hour)
		broker.RefuseCertificates(&client.Error{Reason: client.ReasonInternal, Message: "broken"})
		pass(2 * time.Hour)
		asked := broker.AskedCertificates()
		pass(2 * time.Hour)
		if got := broker.AskedCertificates(); got != asked {
			t.Errorf("asked %d times after the end", got-asked)
		}
		if err := source.Status().CertificateErr; err == nil || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("it says %v", err)
		}
		broker.RefuseCertificates(nil)
		clienttest.Files{Cert: files.Certificate, Key: files.Key}.WriteCertificate(t, broker.NewCertificate())
		pass(10 * time.Minute)
		if status := source.Status(); !status.Connected || status.CertificateErr != nil {
			t.Errorf("status %+v", status)
		}
	})
}

// Nothing of the key is logged or told.
func TestRenewalTellsNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := inMemory(t)
		broker.SetCertificateLife(time.Hour)
		files, _ := enroll(t, broker)
		var log bytes.Buffer
		config := kept(broker, files)
		config.Renew, config.Logger = true, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		source, err := client.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		awaitSigned(t, broker, 3, 3*time.Hour)
		if err := source.Close(); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(key) {
			if text := strings.TrimSpace(string(line)); strings.Contains(log.String(), text) {
				t.Errorf("the log has %q of the key", text)
			}
		}
		if !strings.Contains(log.String(), "to be renewed at") || strings.Count(log.String(), "event=certificate") != 3 {
			t.Errorf("the log says\n%s", log.String())
		}
	})
}

func TestRenewNeedsFiles(t *testing.T) {
	broker := inMemory(t)
	config := broker.Config()
	config.Renew = true
	if source, err := client.New(t.Context(), config); err == nil {
		t.Error(source.Close())
	} else if !strings.Contains(err.Error(), "renew: name the files") {
		t.Error(err)
	}
	if _, err := client.ReadCertificate(client.FilesIn(t.TempDir())); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
