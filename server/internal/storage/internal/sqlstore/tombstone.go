package sqlstore

import (
	"database/sql"
	"errors"
	"time"
)

// tombstone remembers that a tenant, or an agent written tenant/agent, was
// deleted.
type tombstone struct {
	name      string
	deletedAt time.Time
}

// bury makes the tombstone of the name that the query gives.
func bury(t *tx, query, id string) error {
	v := tombstone{deletedAt: t.now}
	if err := t.query(query, []any{id}, &v.name); err != nil {
		return err
	}
	values, err := tombstones.values(&v)
	if err != nil {
		return err
	}
	_, err = t.exec("INSERT INTO tombstones (name, deleted_at) VALUES ($1, $2) "+
		"ON CONFLICT (name) DO UPDATE SET deleted_at = excluded.deleted_at", values...)
	return err
}

// buried is when an agent of that name, or a tenant of its tenant's name, was
// deleted last; zero: never.
func buried(t *tx, tenantID, agent string) (time.Time, error) {
	var at sql.NullInt64
	err := t.query("SELECT MAX(d.deleted_at) FROM tombstones d, tenants t "+
		"WHERE t.id = $1 AND (d.name = t.name OR d.name = t.name || '/' || $2)", []any{tenantID, agent}, &at)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !at.Valid {
		return time.Time{}, nil
	}
	return time.UnixMicro(at.Int64).UTC(), err
}
