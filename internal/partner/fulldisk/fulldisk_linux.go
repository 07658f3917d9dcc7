package fulldisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stokerd/stoker/internal/partner"
)

// Disk is a file system of its own, of the user who runs the test alone.
type Disk struct {
	// Dir is where it is mounted.
	Dir string
}

// New mounts a file system of that many bytes, until the test ends.
func New(t testing.TB, size int) Disk {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("stoker-test", dir, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID, fmt.Sprintf("size=%d,mode=0700", size))
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
	return Disk{dir}
}

// filler is the file that takes the room.
func (d Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill takes all the room that is left with the file "filler", which grows if it
// is there already.
func (d Disk) Fill(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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
}

// Free removes the file that Fill made.
func (d Disk) Free(t testing.TB) {
	t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		t.Fatal(err)
	}
}
