package storage

import "errors"

// The errors a backend answers. A driver's own error never leaves its backend
// bare: it is wrapped in ErrUnavailable, or in one of the others where it means
// that.
var (
	// ErrNotFound says that no such row exists.
	ErrNotFound = errors.New("not found")
	// ErrExists says that the name is taken.
	ErrExists = errors.New("already exists")
	// ErrConflict says that the row changed since it was read: read it again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrInUse says that other rows still refer to this one.
	ErrInUse = errors.New("still in use")
	// ErrUnavailable says that the backend cannot serve now: a lost
	// connection, a full disk, a locked file. Nothing was changed.
	ErrUnavailable = errors.New("storage unavailable")
)
