package atomicfile

import (
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// A file that somebody has open without sharing it cannot be replaced. Readers
// of such small files are done at once.
const (
	renameTries = 10
	renamePause = 20 * time.Millisecond
)

func rename(from, to string) error {
	for try := 1; ; try++ {
		err := os.Rename(from, to)
		shared := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !shared || try == renameTries {
			return err
		}
		time.Sleep(renamePause) //nolint:forbidigo // there is no event to wait for
	}
}

// syncDir does nothing: Windows cannot open a directory for that, and NTFS
// journals the rename.
func syncDir(string) error { return nil }

func lockFile(f *os.File, wait bool) error {
	how := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !wait {
		how |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, math.MaxUint32, math.MaxUint32, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}
