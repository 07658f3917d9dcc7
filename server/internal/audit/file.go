package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// maxTail is how far from its end a file is searched for its last whole line,
// in bytes: several times the longest line.
const maxTail = 2 << 20

// File is a sink that appends to a file of its own. It begins a new file when
// the old one was renamed or removed, as log rotation does. Lines are not
// synced: the trail is what is durable, and a File that is opened again goes
// on after its last whole line.
type File struct {
	path     string // empty: standard output
	writer   string
	sequence int64

	mu   sync.Mutex
	file *os.File
}

// OpenFile opens or creates the file (mode 0600). No other process may append
// to it.
func OpenFile(path string) (*File, error) {
	file, err := openAppending(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, file: file}
	if err := f.inspect(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the end of the audit file: %w", err), file.Close())
	}
	return f, nil
}

// Stdout is the sink that writes to standard output, which it does not close.
// It may be a pipe, a socket or a file that others write to as well, so nothing
// is known of what it holds: records of an earlier process are not caught up.
func Stdout() *File { return &File{file: os.Stdout} }

func openAppending(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit file: %w", err)
	}
	return file, nil
}

// inspect finds the last record, and ends a line that was broken off when a
// broker was killed.
func (f *File) inspect() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil // a pipe or a device: nothing to go on from
	}
	size := info.Size()
	tail := make([]byte, min(size, maxTail))
	if _, err := f.file.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end < len(tail) {
		if _, err := f.file.Write([]byte{'\n'}); err != nil {
			return err
		}
	}
	lines := bytes.Split(tail[:end], []byte{'\n'})
	for i := len(lines) - 1; i >= 0; i-- {
		// A line that is no record was broken off by an earlier kill.
		if r, err := parseLine(lines[i]); err == nil && r.Sequence > 0 {
			f.writer, f.sequence = r.Writer, r.Sequence
			return nil
		}
	}
	return nil
}

func (f *File) last() (writer string, sequence int64, ok bool) {
	return f.writer, f.sequence, f.sequence > 0
}

// Write appends, to a new file if the old one is not at its path any more.
func (f *File) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.follow(); err != nil {
		return 0, err
	}
	return f.file.Write(b)
}

// follow opens the path again if it names another file than the open one.
func (f *File) follow() error {
	if f.path == "" {
		return nil
	}
	there, err := os.Stat(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		open, err := f.file.Stat()
		if err != nil {
			return err
		}
		if os.SameFile(there, open) {
			return nil
		}
	}
	file, err := openAppending(f.path)
	if err != nil {
		return err
	}
	old := f.file
	f.file = file
	return old.Close()
}

// Close closes the file. Close the trail before.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" {
		return nil
	}
	return f.file.Close()
}
