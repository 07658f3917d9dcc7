package transfer

import (
	"context"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

// Copied is how many rows of a table were copied.
type Copied = sqlstore.Copied

// Copy stores in to, which must be empty, all that from holds: ids, revisions,
// times, the change feed and the audit trail with its chains stay what they
// are. It is one transaction: on an error nothing was copied. Brokers must not
// run on either meanwhile, because what is written to from later is not copied.
// Both must be backends of package storage. storage.ErrConflict: to is not
// empty.
func Copy(ctx context.Context, from, to storage.Store) ([]Copied, error) {
	source, err := inner("the source", from)
	if err != nil {
		return nil, err
	}
	destination, err := inner("the destination", to)
	if err != nil {
		return nil, err
	}
	return sqlstore.Copy(ctx, source, destination)
}

func inner(which string, s storage.Store) (*sqlstore.Store, error) {
	backend, ok := s.(interface{ SQL() *sqlstore.Store })
	if !ok {
		return nil, fmt.Errorf("%w: %s is a %T, and no SQL backend", storage.ErrInvalid, which, s)
	}
	return backend.SQL(), nil
}
