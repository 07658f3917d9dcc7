package fulldisk_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stokerd/stoker/internal/partner/fulldisk"
)

func TestDisk(t *testing.T) {
	disk := fulldisk.New(t, 64<<10)
	file := filepath.Join(disk.Dir, "file")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		disk.Fill(t)
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte{1}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil { // and so there is a little room
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk.Free(t)
	if err := os.WriteFile(file, make([]byte, 32<<10), 0o600); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
