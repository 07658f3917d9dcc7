package delivery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/internal/partner"
)

// smallDisk mounts a file system of 64 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("stoker-test", dir, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID, "size=64k,mode=0700")
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

// fill leaves no room on the file system until the filler is removed.
func fill(t *testing.T, dir string) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return filler
}

// namesIn gives what is in a directory.
func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// On a full disk the shared-credentials file stays as it was, whole, with nothing
// left beside it, and is written once there is room again, with nobody asking.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t)
	file := filepath.Join(dir, "credentials")
	s, err := NewSharedFile(file, map[string]string{"photos": "stoker-photos"})
	if err != nil {
		t.Fatal(err)
	}
	supply := newShelf(credentialOf("photos"))
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	before := read(t, file)
	filler := fill(t, dir)
	renewed := credentialOf("photos")
	renewed.AccessKeyID = "ASIARENEWED"
	supply.put(renewed)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		looks, ended := make(chan error, 1), make(chan error, 1)
		go func() { ended <- s.Follow(ctx, supply, nil, func(err error) { looks <- err }) }()
		if err := <-looks; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		if text := read(t, file); text != before {
			t.Errorf("the file:\n%s", text)
		}
		if names := namesIn(t, dir); !slices.Equal(names, []string{"credentials", "credentials.stoker-lock", "filler"}) {
			t.Errorf("left behind: %v", names)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := <-looks; err != nil || time.Since(began) != repeatAfter {
			t.Errorf("with room again: %v after %s", err, time.Since(began))
		}
		if got := read(t, file); got == before {
			t.Errorf("the file:\n%s", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A revocation on a full disk is tried until the profile is gone.
func TestDiskFullRevocation(t *testing.T) {
	dir := smallDisk(t)
	file := filepath.Join(dir, "credentials")
	s, err := NewSharedFile(file, map[string]string{"photos": "stoker-photos"})
	if err != nil {
		t.Fatal(err)
	}
	// Others' profiles take room, so the file without ours does too.
	if err := os.WriteFile(file, []byte(othersText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	filler := fill(t, dir)
	supply := newShelf(credentialOf("photos"))
	supply.fail("photos", client.ErrRevoked, nil)
	if err := s.reconcile(supply); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.reconcile(supply); err != nil {
		t.Error(err)
	}
	if got := read(t, file); got != othersText+"\n" {
		t.Errorf("the file:\n%s", got)
	}
}

// A token that cannot be written is not made, so that no tool is given one that
// the next start does not know.
func TestDiskFullToken(t *testing.T) {
	dir := smallDisk(t)
	filler := fill(t, dir)
	file := filepath.Join(dir, "token")
	if token, err := KeepToken(file); !errors.Is(err, syscall.ENOSPC) || token != "" {
		t.Errorf("on a full disk: %q, %v", token, err)
	}
	if names := namesIn(t, dir); !slices.Equal(names, []string{"filler"}) {
		t.Errorf("left behind: %v", names)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := KeepToken(file); err != nil {
		t.Error(err)
	}
}
