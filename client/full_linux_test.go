package client_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/partner/fulldisk"
)

// On a full disk nothing is asked of the broker, so no join token is spent and no
// certificate signed for nothing, and the old pair stays in use.
func TestDiskFull(t *testing.T) {
	disk := fulldisk.New(t, 1<<20)
	broker := clienttest.New(t, clienttest.WithEnrollment())
	token, config := broker.Invite(), broker.Enrollment(disk.Dir)
	disk.Fill(t)
	if _, err := client.Enroll(t.Context(), token, config); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("enrolling: %v", err)
	}
	disk.Free(t)
	broker.SetCertificateLife(time.Minute)
	first, err := client.Enroll(t.Context(), token, config)
	if err != nil {
		t.Fatal("the token is spent: ", err)
	}
	if got := broker.AskedCertificates(); got != 1 {
		t.Errorf("asked %d times", got)
	}

	// Due at once: a minute is left of an hour.
	clienttest.Files{Cert: config.Files.Certificate, Key: config.Files.Key}.WriteCertificate(t, broker.AgentCertificate(clienttest.AgentID, time.Minute))
	before, err := os.ReadFile(config.Files.Key)
	if err != nil {
		t.Fatal(err)
	}
	broker.SetCertificateLife(time.Hour)
	disk.Fill(t)
	agent := kept(broker, config.Files)
	agent.Renew = true
	source := start(t, agent)
	failed := make(chan error, 100)
	source.Watch(func(e client.Event) {
		if e.Kind == client.EventCertificate && e.Err != nil {
			failed <- e.Err
		}
	})
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "not renewed") {
			t.Errorf("it says %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is said")
	}
	if err := source.Wait(t.Context()); err != nil {
		t.Errorf("without credentials: %v", err)
	}
	if got := broker.AskedCertificates(); got != 1 {
		t.Errorf("asked %d times", got)
	}
	if after, err := os.ReadFile(config.Files.Key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key changed, %v", err)
	}
	disk.Free(t)
	source.CheckCertificate()
	eventually(t, broker, "the renewal", func(b *clienttest.Broker) bool {
		return b.AskedCertificates() == 2 && b.Logins() == 2 && b.Streams() == 1
	})
	if now, err := client.ReadCertificate(config.Files); err != nil || now.Serial == first.Serial || time.Until(now.Expires) < 50*time.Minute {
		t.Errorf("the files have %v, %v", now, err)
	}
}
