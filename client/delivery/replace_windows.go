package delivery

import (
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// A file that somebody has open without sharing it cannot be replaced. Readers
// of such a small file are done at once.
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
		time.Sleep(renamePause)
	}
}

// syncDir does nothing: Windows cannot open a directory for that, and NTFS
// journals the rename.
func syncDir(string) error { return nil }

// lockFile takes the lock of a file, waiting for whoever has it. The system gives
// it back when the process ends, so no lock is ever stale.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, math.MaxUint32, math.MaxUint32, new(windows.Overlapped))
}
