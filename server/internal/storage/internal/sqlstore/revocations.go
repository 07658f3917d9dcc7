package sqlstore

import (
	"context"
	"strconv"

	"github.com/stokerd/stoker/server/internal/storage"
)

// CreateRevocation implements storage.Revocations.
func (s *Store) CreateRevocation(ctx context.Context, v storage.Revocation) (storage.Revocation, error) {
	return createEntity(ctx, s, revocations, v, nil)
}

// GetRevocation implements storage.Revocations.
func (s *Store) GetRevocation(ctx context.Context, id string) (storage.Revocation, error) {
	return getEntity(ctx, s, revocations, id)
}

// ListRevocations implements storage.Revocations. Ids are made from the time,
// so their order is that of creation.
func (s *Store) ListRevocations(ctx context.Context, all bool, p storage.Page) (found []storage.Revocation, err error) {
	err = s.read(ctx, "list revocations", func(ctx context.Context, q querier) error {
		if err := checkLimit(p.Limit); err != nil {
			return err
		}
		c := &conditions{}
		c.addText("id < ?", p.After)
		if !all {
			c.add("state <> ?", string(storage.RevocationExpired))
		}
		found, err = revocations.list(ctx, q, revocations.selection()+c.where()+
			" ORDER BY id DESC LIMIT "+strconv.Itoa(p.Limit), c.args...)
		return err
	})
	return found, err
}

// UpdateRevocation implements storage.Revocations.
func (s *Store) UpdateRevocation(ctx context.Context, v storage.Revocation) (storage.Revocation, error) {
	return updateEntity(ctx, s, revocations, v, nil)
}
