package watch

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
)

func TestBrokers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail()
		write := func(writer string, events ...audit.Event) {
			for _, e := range events {
				trail.append(writer, time.Now(), string(e))
			}
		}
		begun := time.Now()
		trimmed := uuid.Must(uuid.NewV7()).String()
		write(trimmed, audit.AuditCheckpoint, audit.BrokerStarted, audit.CredentialIssued)
		trail.trim(trimmed, 3)
		write("dead", audit.AuditCheckpoint, audit.BrokerStarted)
		sleep(20 * time.Hour)
		write("stopped", audit.AuditCheckpoint, audit.BrokerStarted, audit.BrokerStopped)
		write("running", audit.AuditCheckpoint, audit.CredentialIssued, audit.BrokerStarted, audit.CredentialIssued)
		write("command", audit.AuditCheckpoint, audit.CertificateIssued)
		write("starting", audit.AuditCheckpoint)
		sleep(6 * time.Hour)
		write(trimmed, audit.AuditCheckpoint)
		w := New(trail)
		names := func() (names []string) {
			t.Helper()
			found, err := w.Brokers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range found {
				names = append(names, b.Writer)
				if b.Started.Before(begun.Add(-time.Second)) || b.Last.Before(b.Started) {
					t.Errorf("%+v", b)
				}
			}
			return names
		}
		if got, want := names(), []string{trimmed, "running"}; !slices.Equal(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
		write("starting", audit.BrokerStarted)
		write("running", audit.BrokerStopped)
		sleep(interval)
		if got, want := names(), []string{trimmed, "starting"}; !slices.Equal(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
	})
}
