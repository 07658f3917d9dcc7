package sqlstore

import (
	"context"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
)

// AddKey implements storage.Keys.
func (s *Store) AddKey(ctx context.Context, v storage.SealedKey, replaces string) (storage.SealedKey, error) {
	added := v
	err := s.write(ctx, "add key", moving, func(t *tx) error {
		added = v
		if !v.RetiredAt.IsZero() {
			return fmt.Errorf("%w: a new key is in use, not retired", storage.ErrInvalid)
		}
		// At most one: the database keeps it so.
		inUse, err := sealedKeys.list(t.ctx, t, sealedKeys.selection()+
			"WHERE purpose = $1 AND retired_at IS NULL", v.Purpose)
		if err != nil {
			return err
		}
		current := ""
		if len(inUse) > 0 {
			current = inUse[0].ID
		}
		if current != replaces {
			return fmt.Errorf("%w: another key for %s is in use", storage.ErrConflict, v.Purpose)
		}
		for _, old := range inUse {
			old.RetiredAt = t.now
			if err := sealedKeys.update(t, &old); err != nil {
				return err
			}
		}
		return sealedKeys.create(t, &added)
	})
	return orZero(added, err)
}

// ListKeys implements storage.Keys.
func (s *Store) ListKeys(ctx context.Context, purpose string) (found []storage.SealedKey, err error) {
	err = s.read(ctx, "list keys", func(ctx context.Context, q querier) error {
		found, err = sealedKeys.list(ctx, q, sealedKeys.selection()+
			"WHERE $1 = '' OR purpose = $1 ORDER BY created_at DESC, id DESC", purpose)
		return err
	})
	return found, err
}

// DeleteKey implements storage.Keys.
func (s *Store) DeleteKey(ctx context.Context, id string) error {
	return deleteEntity(ctx, s, sealedKeys, id, 0, nil)
}

// ResealKeys implements storage.Keys.
func (s *Store) ResealKeys(ctx context.Context, reseal func(storage.SealedKey) ([]byte, error)) error {
	var refused error // reseal's own, which is none of storage's
	err := s.write(ctx, "reseal keys", moving, func(t *tx) error {
		refused = nil
		keys, err := sealedKeys.list(t.ctx, t, sealedKeys.selection()+"ORDER BY id")
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k.Sealed, refused = reseal(k); refused != nil {
				return fmt.Errorf("%w: not resealed", storage.ErrInvalid)
			}
			if err := sealedKeys.update(t, &k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && refused != nil {
		return refused
	}
	return err
}
