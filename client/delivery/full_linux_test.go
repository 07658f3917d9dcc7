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
	"github.com/stokerd/stoker/internal/partner/fulldisk"
)

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
	disk := fulldisk.New(t, 64<<10)
	file := filepath.Join(disk.Dir, "credentials")
	s, err := NewSharedFile(file, map[string]string{"photos": "stoker-photos"})
	if err != nil {
		t.Fatal(err)
	}
	supply := newShelf(credentialOf("photos"))
	if err := s.Put(credentialOf("photos")); err != nil {
		t.Fatal(err)
	}
	before := read(t, file)
	disk.Fill(t)
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
		if names := namesIn(t, disk.Dir); !slices.Equal(names, []string{"credentials", "credentials.stoker-lock", "filler"}) {
			t.Errorf("left behind: %v", names)
		}
		disk.Free(t)
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
	disk := fulldisk.New(t, 64<<10)
	file := filepath.Join(disk.Dir, "credentials")
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
	disk.Fill(t)
	supply := newShelf(credentialOf("photos"))
	supply.fail("photos", client.ErrRevoked, nil)
	if err := s.reconcile(supply); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	disk.Free(t)
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
	disk := fulldisk.New(t, 64<<10)
	disk.Fill(t)
	file := filepath.Join(disk.Dir, "token")
	if token, err := KeepToken(file); !errors.Is(err, syscall.ENOSPC) || token != "" {
		t.Errorf("on a full disk: %q, %v", token, err)
	}
	if names := namesIn(t, disk.Dir); !slices.Equal(names, []string{"filler"}) {
		t.Errorf("left behind: %v", names)
	}
	disk.Free(t)
	if _, err := KeepToken(file); err != nil {
		t.Error(err)
	}
}
