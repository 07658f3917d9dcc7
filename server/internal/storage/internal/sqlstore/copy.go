package sqlstore

import (
	"context"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Copied is how many rows of a table were copied.
type Copied struct {
	Table string
	Rows  int64
}

// table is a row of some type.
type table interface {
	name() string
	copyAll(ctx context.Context, from querier, to *tx) (int64, error)
}

// tables are all tables but the feed's head, in the order in which they refer
// to one another.
var tables = []table{
	tenants, users, agents, locations, grants, certificates, tombstones, endedSessions, sealedKeys, joinTokens, revocations,
	changes, auditHeads, auditRecords,
}

// SQL gives the store itself. Backends embed a Store and so have it too.
func (s *Store) SQL() *Store { return s }

// Copy stores in to, which must be empty, all that from holds at one moment:
// ids, revisions, times, the change feed and the audit trail stay what they
// are. It is one transaction: on an error nothing was copied. What is written
// to from later is not copied. ErrConflict: to is not empty.
func Copy(ctx context.Context, from, to *Store) ([]Copied, error) {
	var copied []Copied
	err := to.write(ctx, "copy", moving, func(t *tx) error {
		copied = nil
		if err := requireEmpty(t); err != nil {
			return err
		}
		return from.readAtOnce(ctx, "read what is to be copied", func(ctx context.Context, q querier) error {
			for _, table := range tables {
				n, err := table.copyAll(ctx, q, t)
				if err != nil {
					return err
				}
				copied = append(copied, Copied{table.name(), n})
			}
			last, err := head(ctx, q)
			if err != nil {
				return err
			}
			_, err = t.exec(`UPDATE feed SET head = $1 WHERE id = 1`, last)
			return ofDestination(err)
		})
	})
	return orZero(copied, err)
}

func requireEmpty(t *tx) error {
	if t.head != 0 {
		return fmt.Errorf("%w: the destination is not empty: its feed is at %d", storage.ErrConflict, t.head)
	}
	for _, table := range tables {
		found, err := exists(t, "SELECT 1 FROM "+table.name()+" LIMIT 1")
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%w: the destination is not empty: it has %s", storage.ErrConflict, table.name())
		}
	}
	return nil
}

func (r row[T]) name() string { return r.table }

// copyAll copies the table's rows, a bounded number of them in memory.
func (r row[T]) copyAll(ctx context.Context, from querier, to *tx) (int64, error) {
	in := newInserter(to.store.dialect, r.table, r.columns())
	var total int64
	var batch []T
	flush := func() error {
		err := in.run(to, len(batch), func(i int) ([]any, error) { return r.values(&batch[i]) })
		total += int64(len(batch))
		batch = batch[:0]
		return ofDestination(err)
	}
	err := r.each(ctx, from, r.selection(), nil, func(v T) error {
		if batch = append(batch, v); len(batch) < copyBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return 0, err
	}
	return total, flush()
}

// ofDestination takes an error past the source, which would take it for its
// own, to the destination, which can tell what it means.
func ofDestination(err error) error {
	if err == nil {
		return nil
	}
	return &foreignError{err}
}

// copyBatch is how many rows are copied at once.
const copyBatch = 256
