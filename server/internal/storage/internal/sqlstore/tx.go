package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// mode is what a writing transaction does with the change feed.
type mode int

const (
	// plain leaves the feed alone.
	plain mode = iota
	// moving may append changes. Such transactions run one after the other,
	// in all replicas, so that what one has read stays true until it commits.
	moving
	// holding reads the feed's head and keeps it where it is.
	holding
)

// tx is one writing transaction.
type tx struct {
	*sql.Tx
	ctx     context.Context
	store   *Store
	now     time.Time
	head    int64 // of the feed; set unless the mode is plain
	changes []storage.Change
	// prepared are the store's statements that this transaction has used.
	prepared map[string]*sql.Stmt
}

// querier is what reads need of a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// read runs f outside of any transaction: for single queries.
func (s *Store) read(ctx context.Context, op string, f func(context.Context, querier) error) error {
	inner, leave, err := s.enter(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer leave()
	return s.explain(ctx, op, s.repeat(inner, func() error { return f(inner, s.reader) }))
}

// repeat calls f until it succeeds or fails for good.
func (s *Store) repeat(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || n == maxRepeats || ctx.Err() != nil || !s.repeatable(err) {
			return err
		}
	}
}

// repeatable says whether a call that failed may be made again: something
// passing was in its way, and it surely changed nothing.
func (s *Store) repeatable(err error) bool {
	foreign, commit := (*foreignError)(nil), (*commitError)(nil)
	switch {
	case isDomain(err), errors.As(err, &foreign), errors.As(err, &commit) && s.dialect.InDoubt(commit.err):
		return false
	}
	return s.dialect.Fault(err) == FaultRepeat
}

// readAtOnce runs f in a transaction in which all queries see one moment.
func (s *Store) readAtOnce(ctx context.Context, op string, f func(context.Context, querier) error) error {
	return s.read(ctx, op, func(ctx context.Context, _ querier) error {
		t, err := s.reader.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			return err
		}
		// A reading transaction has nothing to commit, and rolling it back can
		// only fail when it is over already.
		defer func() { _ = t.Rollback() }()
		return f(ctx, t)
	})
}

// write runs f in a transaction and commits it. f may run more than once.
func (s *Store) write(ctx context.Context, op string, m mode, f func(*tx) error) error {
	inner, leave, err := s.enter(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer leave()
	var moved bool
	err = s.repeat(inner, func() (err error) {
		moved, err = s.attempt(inner, m, f)
		return err
	})
	if err == nil && moved {
		s.bell.Ring()
	}
	return s.explain(ctx, op, err)
}

// attempt runs one transaction. It reports whether the feed moved.
func (s *Store) attempt(ctx context.Context, m mode, f func(*tx) error) (moved bool, err error) {
	inner, err := s.writer.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	t := &tx{Tx: inner, ctx: ctx, store: s}
	committing := false
	defer func() {
		if !committing {
			// Also when f panics. The rollback itself fails only with the
			// connection, which then does not return to the pool, and the
			// database rolls back by itself.
			_ = t.Rollback()
		}
	}()
	if err := t.begin(m); err != nil {
		return false, err
	}
	if err := f(t); err != nil {
		return false, err
	}
	if err := t.appendChanges(); err != nil {
		return false, err
	}
	// A context or store that ended by now has done so before the commit: no
	// doubt. Close is looked at as well because it reaches ctx a little later.
	if err := errors.Join(ctx.Err(), s.closing.Err()); err != nil {
		return false, err
	}
	committing = true
	if err := t.Commit(); err != nil {
		return false, &commitError{err}
	}
	return len(t.changes) > 0, nil
}

// begin takes the hold on the feed that the mode needs. The time is read after
// waiting for it, so that the stamps of changes follow their order.
func (t *tx) begin(m mode) error {
	lock := ""
	switch m {
	case moving:
		lock = t.store.dialect.LockFeed
	case holding:
		lock = t.store.dialect.HoldFeed
	}
	if lock != "" {
		if _, err := t.exec(lock); err != nil {
			return err
		}
	}
	t.now = now()
	if m == plain {
		return nil
	}
	return t.query(queryHead, nil, &t.head)
}

const queryHead = `SELECT head FROM feed WHERE id = 1`

// change notes that an entity changed, to be told with the commit.
func (t *tx) change(kind storage.Kind, id string) {
	t.changes = append(t.changes, storage.Change{
		Sequence: t.head + int64(len(t.changes)) + 1, Kind: kind, ID: id,
	})
}

// appendChanges moves the feed by the changes noted, and trims what is over
// what is kept: a tenth at a time, so that few writes pay for it.
func (t *tx) appendChanges() error {
	if len(t.changes) == 0 {
		return nil
	}
	head := t.changes[len(t.changes)-1].Sequence
	if _, err := t.exec(`UPDATE feed SET head = $1 WHERE id = 1`, head); err != nil {
		return err
	}
	err := t.store.insertChanges.run(t, len(t.changes), func(i int) ([]any, error) {
		c := t.changes[i]
		return []any{c.Sequence, string(c.Kind), c.ID}, nil
	})
	if err != nil {
		return err
	}
	step := max(t.store.keep/10, 1)
	if head/step != t.head/step {
		if _, err := t.exec(`DELETE FROM changes WHERE sequence <= $1`, head-t.store.keep); err != nil {
			return err
		}
	}
	if t.store.dialect.Announce == "" {
		return nil
	}
	_, err = t.exec(t.store.dialect.Announce)
	return err
}

// exec runs a statement and gives the number of rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	var result sql.Result
	var err error
	if stmt := t.hot(query); stmt != nil {
		result, err = stmt.ExecContext(t.brief(), args...)
	} else {
		result, err = t.ExecContext(t.ctx, query, args...)
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query reads one row; sql.ErrNoRows where there is none.
func (t *tx) query(query string, args []any, into ...any) error {
	if err := checkArgs(args); err != nil {
		return err
	}
	if stmt := t.hot(query); stmt != nil {
		return stmt.QueryRowContext(t.brief(), args...).Scan(into...)
	}
	return t.QueryRowContext(t.ctx, query, args...).Scan(into...)
}

// hot gives the query's statement if the store has prepared it. A batch runs
// the same one for each of its rows.
func (t *tx) hot(query string) *sql.Stmt {
	if stmt := t.prepared[query]; stmt != nil {
		return stmt
	}
	stmt, ok := t.store.prepared[query]
	if !ok {
		return nil
	}
	if t.prepared == nil {
		t.prepared = make(map[string]*sql.Stmt)
	}
	stmt = t.StmtContext(t.ctx, stmt)
	t.prepared[query] = stmt
	return stmt
}

// brief is the context of a prepared statement. Each touches a row and waits
// for nobody, since the transaction has its locks; so one need not be
// interruptible, for which drivers may spend a goroutine. The transaction
// ends with its own context all the same, and attempt looks at that before it
// commits.
func (t *tx) brief() context.Context { return context.WithoutCancel(t.ctx) }
