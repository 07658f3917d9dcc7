package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
)

// errClosed is the answer of every call after Close.
var errClosed = fmt.Errorf("%w: the store is closed", storage.ErrUnavailable)

// domain are the errors that pass to the caller as they are.
var domain = []error{
	storage.ErrNotFound, storage.ErrExists, storage.ErrConflict, storage.ErrInUse,
	storage.ErrUnavailable, storage.ErrInDoubt, storage.ErrInvalid,
}

func isDomain(err error) bool {
	for _, d := range domain {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}

// foreignError carries an error of the caller's own function, which is given
// back untouched.
type foreignError struct{ err error }

func (e *foreignError) Error() string { return e.err.Error() }

// commitError is a failed commit.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// explain turns what a call ended with into an error of the contract. The
// driver's error is given as text, never wrapped: it may hold the whole
// configuration of the connection, password included.
func (s *Store) explain(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if foreign := (*foreignError)(nil); errors.As(err, &foreign) {
		return foreign.err
	}
	if isDomain(err) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", op, storage.ErrNotFound)
	}
	cause := s.cause(ctx, err)
	if commit := (*commitError)(nil); errors.As(err, &commit) && s.dialect.InDoubt(commit.err) {
		return fmt.Errorf("%s: %w: %w", op, cause, storage.ErrInDoubt)
	}
	return fmt.Errorf("%s: %w", op, cause)
}

// cause picks the error of the contract for an error of the driver. A context
// that has ended explains every failure after it.
func (s *Store) cause(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.closing.Err() != nil:
		return errClosed
	}
	switch s.dialect.Fault(err) {
	case FaultTaken:
		return storage.ErrExists
	case FaultReference:
		return storage.ErrNotFound
	default:
		return fmt.Errorf("%w: %s", storage.ErrUnavailable, s.dialect.Text(err))
	}
}
