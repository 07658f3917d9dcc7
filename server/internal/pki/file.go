package pki

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/stokerd/stoker/internal/atomicfile"
)

const (
	// KeyMode is the mode of files that hold a private key.
	KeyMode fs.FileMode = 0o600
	// PublicMode is the mode of files that hold certificates.
	PublicMode fs.FileMode = 0o644

	// maxFile bounds what is read; only a revocation list comes near.
	maxFile = 64 << 20
	// settleTime is how old a file's modification must be before an unchanged
	// modification time is taken for unchanged content: a second write within
	// the clock's grain leaves the time as it was.
	settleTime = 5 * time.Second
)

// WriteFile replaces a file at once: a reader finds the old content or the
// new, and after a crash one of them is there. The file has exactly the given
// mode, from before the first byte is written.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	if err := atomicfile.Write(path, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// watched is one file that is read again when it changes. It is not safe for
// concurrent use.
type watched struct {
	path string
	// private files must not be readable by everybody.
	private bool

	info    fs.FileInfo
	settled bool
	data    []byte
}

// load reads the file if it may have changed and says whether its content did.
// After an error the content is the last good one.
func (w *watched) load(now time.Time) (changed bool, err error) {
	info, err := os.Stat(w.path)
	if err != nil {
		w.info = nil
		return false, err
	}
	if w.info != nil && w.settled && os.SameFile(w.info, info) &&
		w.info.ModTime().Equal(info.ModTime()) && w.info.Size() == info.Size() && w.info.Mode() == info.Mode() {
		return false, nil
	}
	w.info = nil
	if w.private && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return false, fmt.Errorf("%s: everybody on this machine can reach the key: chmod 600 it", w.path)
	}
	data, err := readBounded(w.path)
	if err != nil {
		return false, err
	}
	age := now.Sub(info.ModTime())
	w.info, w.settled = info, age > settleTime
	if w.data != nil && bytes.Equal(w.data, data) {
		return false, nil
	}
	w.data = data
	return true, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s is over %d bytes", path, maxFile)
	case len(data) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	}
	return data, nil
}
