package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// DefaultKeepChanges is how many entries of the change feed are kept at least.
// A reader that is further behind loads everything again, which costs about as
// much as reading this many changes one by one.
const DefaultKeepChanges = 100_000

// maxRepeats bounds how often a call is repeated. After a restart of the
// database each connection of a pool may have to be found broken.
const maxRepeats = 16

// Config is what a backend brings.
type Config struct {
	Dialect Dialect
	// Writer runs the transactions that write, Reader everything else; they
	// may be the same. The store closes both.
	Writer, Reader *sql.DB
	// Bell is rung after each commit that moved the feed. The backend may
	// ring it too. The store closes it.
	Bell *Bell
	// KeepChanges is how many entries of the change feed are kept at least;
	// 0 means DefaultKeepChanges.
	KeepChanges int64
}

// Store implements storage.Store over database/sql.
type Store struct {
	dialect Dialect
	writer  *sql.DB
	reader  *sql.DB
	bell    *Bell
	keep    int64

	insertChanges, insertAudit inserter

	prepared map[string]*sql.Stmt // by query; read-only after New

	// closing ends when Close is called, and with it every call in progress.
	closing context.Context
	close   context.CancelFunc
	mu      sync.Mutex // guards closed, and calls.Add against calls.Wait
	closed  bool
	calls   sync.WaitGroup
}

var _ storage.Store = (*Store)(nil)

// New makes a store over a database whose migrations have been run. On an
// error the databases stay the caller's to close.
func New(ctx context.Context, c Config) (*Store, error) {
	s := &Store{
		dialect: c.Dialect, writer: c.Writer, reader: c.Reader, bell: c.Bell,
		keep: c.KeepChanges, prepared: map[string]*sql.Stmt{},
		insertChanges: newInserter(c.Dialect, changes.table, changes.columns()),
		insertAudit:   newInserter(c.Dialect, auditRecords.table, auditRecords.columns()),
	}
	if s.keep == 0 {
		s.keep = DefaultKeepChanges
	}
	s.closing, s.close = context.WithCancel(context.Background())
	if c.Dialect.PrepareHot {
		// Those of the path from an authorization to its credential.
		hot := slices.Concat([]string{queryHead, replaceHead}, s.insertAudit.queries, s.insertChanges.queries)
		if err := s.prepare(ctx, hot...); err != nil {
			return nil, errors.Join(err, s.unprepare())
		}
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context, queries ...string) error {
	for _, query := range queries {
		stmt, err := s.writer.PrepareContext(ctx, query)
		if err != nil {
			return fmt.Errorf("%w: prepare statements: %s", storage.ErrUnavailable, s.dialect.Text(err))
		}
		s.prepared[query] = stmt
	}
	return nil
}

func (s *Store) unprepare() error {
	var errs []error
	for _, stmt := range s.prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// Close implements storage.Store. It waits for calls in progress, which its
// beginning has cancelled.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.close()
	s.mu.Unlock()

	s.calls.Wait()
	s.bell.Close()
	err := s.unprepare()
	if s.reader != s.writer {
		err = errors.Join(err, s.reader.Close())
	}
	if err = errors.Join(err, s.writer.Close()); err != nil {
		return fmt.Errorf("%w: close: %s", storage.ErrUnavailable, s.dialect.Text(err))
	}
	return nil
}

// enter counts a call in. Its context ends with the caller's and with the
// store; leave must be called when the call is done.
func (s *Store) enter(ctx context.Context) (inner context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosed
	}
	s.calls.Add(1)
	inner, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closing, cancel)
	return inner, func() {
		stop()
		cancel()
		s.calls.Done()
	}, nil
}

// Ping implements storage.Store.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, "ping", plain, func(t *tx) error {
		n, err := t.exec(`UPDATE probe SET written_at = $1 WHERE id = 1`, t.now.UnixMicro())
		if err == nil && n != 1 {
			err = errors.New("the probe row is gone")
		}
		return err
	})
}

// now is the time that writes are stamped with, as it will be read back.
func now() time.Time { return time.UnixMicro(time.Now().UnixMicro()).UTC() }
