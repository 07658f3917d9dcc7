package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// ErrLocked says that another process has the lock.
var ErrLocked = errors.New("another process is changing the file")

// Write replaces a file, or makes it. The mode is set before the first byte is
// written; Windows knows none, and a file's access list comes from its
// directory there.
func Write(path string, data []byte, mode fs.FileMode) error {
	next, err := Stage(path, data, mode)
	if err != nil {
		return err
	}
	if err := next.Place(); err != nil {
		return errors.Join(err, next.Discard())
	}
	return nil
}

// Staged is a file that lies durably beside its place. Either Place or Discard
// must be called; a crash before that leaves it there under a name that begins
// with a dot, the place's name and ".stoker-". It is not safe for concurrent use.
type Staged struct {
	path, temporary string
}

// Stage writes a file beside its place.
func Stage(path string, data []byte, mode fs.FileMode) (*Staged, error) {
	// CreateTemp makes it 0600, so that a secret is never readable in between.
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*")
	if err != nil {
		return nil, err
	}
	s := &Staged{path: path, temporary: f.Name()}
	if runtime.GOOS != "windows" {
		err = f.Chmod(mode.Perm())
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		// Otherwise a crash after the rename could leave an empty file.
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), s.Discard())
	}
	return s, nil
}

// Refill overwrites what was staged by no more bytes than that. It needs no more
// room on the disk than Stage has taken already.
func (s *Staged) Refill(data []byte) error {
	f, err := os.OpenFile(s.temporary, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	return nil
}

// Place puts the file in its place, durably.
func (s *Staged) Place() error {
	if err := rename(s.temporary, s.path); err != nil {
		return err
	}
	s.temporary = ""
	return syncDir(filepath.Dir(s.path))
}

// Discard removes the file unless it is in its place.
func (s *Staged) Discard() error {
	if s.temporary == "" {
		return nil
	}
	if err := os.Remove(s.temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.temporary = ""
	return nil
}

// Sweep removes what crashes have left beside the place. Nobody else may be
// about to write the file: hold its lock.
func Sweep(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix(path)) && e.Type().IsRegular() {
			problems = append(problems, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(problems...)
}

// prefix begins the names of staged files.
func prefix(path string) string { return "." + filepath.Base(path) + ".stoker-" }

// Lock waits for the lock of that name, which is a file made if need be and never
// removed. The system gives the lock back when the process ends, so none is ever
// stale.
func Lock(path string) (unlock func() error, err error) { return lock(path, true) }

// TryLock is Lock, but gives ErrLocked where it would wait.
func TryLock(path string) (unlock func() error, err error) { return lock(path, false) }

func lock(path string, wait bool) (func() error, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, wait); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	// Closing gives the lock back.
	return f.Close, nil
}
