package client_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/internal/partner"
)

// smallDisk mounts a file system of a megabyte.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("stoker-test", dir, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID, "size=1m,mode=0700")
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENODEV) {
		partner.Missing(t, "a mounted tmpfs", "run as root: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on the file system.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// On a full disk nothing is asked of the broker, so no join token is spent and no
// certificate signed for nothing, and the old pair stays in use.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t)
	broker := clienttest.New(t, clienttest.WithEnrollment())
	token, config := broker.Invite(), broker.Enrollment(dir)
	free := fill(t, dir)
	if _, err := client.Enroll(t.Context(), token, config); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("enrolling: %v", err)
	}
	free()
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
	free = fill(t, dir)
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
	case <-time.After(10 * time.Second):
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
	free()
	source.CheckCertificate()
	eventually(t, broker, "the renewal", func(b *clienttest.Broker) bool {
		return b.AskedCertificates() == 2 && b.Logins() == 2 && b.Streams() == 1
	})
	if now, err := client.ReadCertificate(config.Files); err != nil || now.Serial == first.Serial || time.Until(now.Expires) < 50*time.Minute {
		t.Errorf("the files have %v, %v", now, err)
	}
}
