package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stokerd/stoker/server/internal/storage"
)

// row says how a type T lies in its table.
type row[T any] struct {
	table string
	cells func(*T) []cell
}

// columns lists the table's columns in the order of the cells.
func (r row[T]) columns() []string {
	var zero T
	var names []string
	for _, c := range r.cells(&zero) {
		names = append(names, c.column)
	}
	return names
}

// values checks v, brings it into its stored form, and gives that.
func (r row[T]) values(v *T) ([]any, error) {
	cells := r.cells(v)
	values := make([]any, len(cells))
	for i, c := range cells {
		value, err := c.put()
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	return values, nil
}

// insert stores a new row.
func (r row[T]) insert(t *tx, v *T) error {
	values, err := r.values(v)
	if err != nil {
		return err
	}
	columns := r.columns()
	_, err = t.exec("INSERT INTO "+r.table+" ("+strings.Join(columns, ", ")+") VALUES "+
		placeholders(1, len(columns)), values...)
	return err
}

// selection is the query of all rows, without the contents of the hidden
// columns, which are not even read.
func (r row[T]) selection(hidden ...string) string {
	columns := r.columns()
	for i, c := range columns {
		for _, h := range hidden {
			if c == h {
				columns[i] = "NULL"
			}
		}
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + r.table + " "
}

// list reads the rows that the query gives; it begins with a selection.
func (r row[T]) list(ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	var found []T
	err := r.each(ctx, q, query, args, func(v T) error {
		found = append(found, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// each calls f for each row that the query gives, until f fails.
func (r row[T]) each(ctx context.Context, q querier, query string, args []any, f func(T) error) error {
	if err := checkArgs(args); err != nil {
		return err
	}
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	// Close after Next gave false reports nothing new; before that there is an
	// error to report already.
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var v T
		cells := r.cells(&v)
		into := make([]any, len(cells))
		for i, c := range cells {
			into[i] = c
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return rows.Err()
}

// get reads one row; sql.ErrNoRows where there is none.
func (r row[T]) get(ctx context.Context, q querier, condition string, args ...any) (T, error) {
	var zero T
	found, err := r.list(ctx, q, r.selection()+condition, args...)
	switch {
	case err != nil:
		return zero, err
	case len(found) == 0:
		return zero, sql.ErrNoRows
	}
	return found[0], nil
}

// entity is a row with a Meta, whose changes are announced.
type entity[T any] struct {
	row[T]
	kind storage.Kind
	meta func(*T) *storage.Meta
}

// newEntity adds the cells of the Meta to those of the fields.
func newEntity[T any](table string, kind storage.Kind, meta func(*T) *storage.Meta, fields func(*T) []cell) entity[T] {
	return entity[T]{kind: kind, meta: meta, row: row[T]{table: table, cells: func(v *T) []cell {
		m := meta(v)
		return append([]cell{
			fixed(key("id", &m.ID)), number("revision", &m.Revision),
			moment("created_at", &m.CreatedAt), moment("updated_at", &m.UpdatedAt),
		}, fields(v)...)
	}}}
}

// create stores v and notes the change.
func (e entity[T]) create(t *tx, v *T) error {
	m := e.meta(v)
	m.Revision, m.CreatedAt, m.UpdatedAt = 1, t.now, t.now
	if err := e.insert(t, v); err != nil {
		return err
	}
	t.change(e.kind, m.ID)
	return nil
}

// current reads the row for a write: it must still have the revision, or the
// revision is 0 and any is allowed.
func (e entity[T]) current(t *tx, id string, revision int64, anyRevision bool) (T, error) {
	stored, err := e.get(t.ctx, t, "WHERE id = $1", id)
	if err != nil {
		return stored, err
	}
	if have := e.meta(&stored).Revision; have != revision && (!anyRevision || revision != 0) {
		return stored, fmt.Errorf("%w: revision %d, not %d", storage.ErrConflict, have, revision)
	}
	return stored, nil
}

// update replaces the stored row by v, whose revision must be the stored one.
func (e entity[T]) update(t *tx, v *T) error {
	m := e.meta(v)
	stored, err := e.current(t, m.ID, m.Revision, false)
	if err != nil {
		return err
	}
	m.CreatedAt, m.UpdatedAt = e.meta(&stored).CreatedAt, t.now
	m.Revision++
	values, err := e.values(v)
	if err != nil {
		return err
	}
	before, err := e.values(&stored)
	if err != nil {
		return err
	}
	var set []string
	for i, c := range e.cells(v) {
		if c.fixed && values[i] != before[i] {
			return c.invalid("cannot change")
		}
		set = append(set, c.column+" = $"+strconv.Itoa(i+1))
	}
	// Writes of entities run one after the other, so the row is still the one
	// that was read: its id is enough.
	_, err = t.exec("UPDATE "+e.table+" SET "+strings.Join(set, ", ")+" WHERE id = $1", values...)
	if err != nil {
		return err
	}
	t.change(e.kind, m.ID)
	return nil
}

// remove deletes the row and notes the change.
func (e entity[T]) remove(t *tx, id string) error {
	if _, err := t.exec("DELETE FROM "+e.table+" WHERE id = $1", id); err != nil {
		return err
	}
	t.change(e.kind, id)
	return nil
}

// removeWhere deletes the rows that the condition names and notes each change.
func (e entity[T]) removeWhere(t *tx, condition string, args ...any) error {
	ids, err := identifiers.list(t.ctx, t, "DELETE FROM "+e.table+" WHERE "+condition+" RETURNING id", args...)
	if err != nil {
		return err
	}
	slices.Sort(ids)
	for _, id := range ids {
		t.change(e.kind, id)
	}
	return nil
}

// identifiers reads rows of one text.
var identifiers = row[string]{cells: func(id *string) []cell { return []cell{key("id", id)} }}

// exists says whether the query gives a row.
func exists(t *tx, query string, args ...any) (bool, error) {
	var one int64
	err := t.query(query, args, &one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// require answers ErrNotFound, naming what is missing, unless the query gives
// a row.
func require(t *tx, what, query string, args ...any) error {
	found, err := exists(t, query, args...)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s", storage.ErrNotFound, what)
	}
	return err
}

// checkLimit refuses a page without a limit.
func checkLimit(limit int) error {
	if limit <= 0 {
		return fmt.Errorf("%w: limit %d, give one over 0", storage.ErrInvalid, limit)
	}
	return nil
}

// The calls that are the same for all entities.

func createEntity[T any](ctx context.Context, s *Store, e entity[T], v T, check func(*tx) error) (T, error) {
	err := s.write(ctx, "create "+string(e.kind), moving, func(t *tx) error {
		if check != nil {
			if err := check(t); err != nil {
				return err
			}
		}
		return e.create(t, &v)
	})
	return orZero(v, err)
}

func getEntity[T any](ctx context.Context, s *Store, e entity[T], id string) (v T, err error) {
	err = s.read(ctx, "get "+string(e.kind), func(ctx context.Context, q querier) error {
		v, err = e.get(ctx, q, "WHERE id = $1", id)
		return err
	})
	return v, err
}

// listEntities pages through the rows that the condition leaves, in the order
// of the column. The condition's parameters start at $3.
func listEntities[T any](ctx context.Context, s *Store, e entity[T], column string, p storage.Page, condition string, args ...any) (found []T, err error) {
	err = s.read(ctx, "list "+string(e.kind), func(ctx context.Context, q querier) error {
		if err := checkLimit(p.Limit); err != nil {
			return err
		}
		found, err = e.list(ctx, q, e.selection()+"WHERE "+column+" > $1 AND "+condition+
			" ORDER BY "+column+" LIMIT $2", append([]any{p.After, p.Limit}, args...)...)
		return err
	})
	return found, err
}

// The conditions of listEntities.
const (
	allRows  = "1 = 1"
	ofTenant = "tenant_id = $3"
)

func updateEntity[T any](ctx context.Context, s *Store, e entity[T], v T, check func(*tx) error) (T, error) {
	updated := v
	err := s.write(ctx, "update "+string(e.kind), moving, func(t *tx) error {
		updated = v // a repeated transaction starts from what was passed
		if check != nil {
			if err := check(t); err != nil {
				return err
			}
		}
		return e.update(t, &updated)
	})
	return orZero(updated, err)
}

// deleteEntity removes the row after before has run; the Changes of what
// before removes come first.
func deleteEntity[T any](ctx context.Context, s *Store, e entity[T], id string, revision int64, before func(*tx) error) error {
	return s.write(ctx, "delete "+string(e.kind), moving, func(t *tx) error {
		if _, err := e.current(t, id, revision, true); err != nil {
			return err
		}
		if before != nil {
			if err := before(t); err != nil {
				return err
			}
		}
		return e.remove(t, id)
	})
}

func orZero[T any](v T, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}
