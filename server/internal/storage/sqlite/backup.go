package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Backup writes what the database at a path holds at one moment into a new file
// (mode 0600, its directory must exist), while a broker works on it or not. It
// migrates nothing. A file that is there already is left alone. Errors wrap
// storage.ErrUnavailable; after one there is no new file.
func Backup(ctx context.Context, from, to string) (err error) {
	fail := func(err error) error { return fmt.Errorf("back up %s: %w: %w", from, storage.ErrUnavailable, err) }
	// Connecting would make an empty database.
	if _, err := os.Stat(from); err != nil {
		return fail(err)
	}
	if from, err = filepath.Abs(from); err != nil {
		return fail(err)
	}
	// SQLite would give it the mode 0644; it takes an empty file as a new one.
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	if err := f.Close(); err != nil {
		return fail(err)
	}
	db, err := connect(from, 1, "deferred", map[string]string{"mode": "ro"})
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var id int64
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return fail(errors.New(describe(err)))
	}
	if id != applicationID {
		return fail(errors.New("the file is not a broker's database"))
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return fail(errors.New(describe(err)))
	}
	return sync(to)
}

// sync makes the file and its name durable: a backup that a power cut takes
// away is none. Windows syncs only what was opened for writing, and no
// directories, which it does not need.
func sync(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	files := []*os.File{f}
	if runtime.GOOS != "windows" {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return errors.Join(fmt.Errorf("%w: %w", storage.ErrUnavailable, err), f.Close())
		}
		files = append(files, dir)
	}
	var problems []error
	for _, f := range files {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			problems = append(problems, fmt.Errorf("%w: sync %s: %w", storage.ErrUnavailable, f.Name(), err))
		}
	}
	return errors.Join(problems...)
}
