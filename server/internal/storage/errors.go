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
	// connection, a full disk, a locked file, a closed store. Nothing was
	// changed, unless ErrInDoubt comes with it.
	ErrUnavailable = errors.New("storage unavailable")
	// ErrInDoubt says that the answer to a commit was lost: the write may
	// stand or not, read to know. It comes with ErrUnavailable or with the
	// context's error, never alone.
	ErrInDoubt = errors.New("it is not known whether the write took effect")
	// ErrInvalid says that what was passed can never be stored: a text with a
	// NUL, with bytes that are no UTF-8, or over its limit; a required field
	// left empty; a name or parent that an update would change; a page
	// without a limit. Nothing was changed.
	ErrInvalid = errors.New("cannot be stored")
)
