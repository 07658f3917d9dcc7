package sqlstore

import (
	"context"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Load implements storage.Feed.
func (s *Store) Load(ctx context.Context) (storage.Snapshot, error) {
	var snap storage.Snapshot
	err := s.readAtOnce(ctx, "load", func(ctx context.Context, q querier) (err error) {
		if snap.Sequence, err = head(ctx, q); err != nil {
			return err
		}
		if snap.Tenants, err = tenants.list(ctx, q, tenants.selection()); err != nil {
			return err
		}
		if snap.Users, err = users.list(ctx, q, users.selection("password_hash")); err != nil {
			return err
		}
		if snap.Agents, err = agents.list(ctx, q, agents.selection()); err != nil {
			return err
		}
		if snap.Locations, err = locations.list(ctx, q, locations.selection()); err != nil {
			return err
		}
		if snap.Grants, err = grants.list(ctx, q, grants.selection()); err != nil {
			return err
		}
		if snap.RevokedCertificates, err = certificates.list(ctx, q, certificates.selection()+
			"WHERE revoked_at IS NOT NULL AND (not_after IS NULL OR not_after >= $1)", now().UnixMicro()); err != nil {
			return err
		}
		if snap.EndedSessions, err = endedSessions.list(ctx, q, endedSessions.selection()); err != nil {
			return err
		}
		snap.Revocations, err = revocations.list(ctx, q, revocations.selection()+
			"WHERE state <> $1", string(storage.RevocationExpired))
		return err
	})
	return orZero(snap, err)
}

// Head implements storage.Feed.
func (s *Store) Head(ctx context.Context) (sequence int64, err error) {
	err = s.read(ctx, "read the feed's head", func(ctx context.Context, q querier) error {
		sequence, err = head(ctx, q)
		return err
	})
	return sequence, err
}

func head(ctx context.Context, q querier) (int64, error) {
	return sequences.get(ctx, q, "WHERE id = 1")
}

// sequences reads the feed's head as a row of one number.
var sequences = row[int64]{table: "feed", cells: func(v *int64) []cell { return []cell{number("head", v)} }}

// Changes implements storage.Feed. Head and changes are read at one moment, so
// that what is missing in front was trimmed and is not just later than the
// first look.
func (s *Store) Changes(ctx context.Context, after int64, limit int) (found []storage.Change, err error) {
	err = s.readAtOnce(ctx, "read changes", func(ctx context.Context, q querier) error {
		if err := checkLimit(limit); err != nil {
			return err
		}
		last, err := head(ctx, q)
		if err != nil {
			return err
		}
		found, err = changes.list(ctx, q, changes.selection()+
			"WHERE sequence > $1 ORDER BY sequence LIMIT $2", after, limit)
		if err != nil {
			return err
		}
		if after > last {
			return fmt.Errorf("%w: the feed ends at %d, before %d: load again", storage.ErrNotFound, last, after)
		}
		if after < last && (len(found) == 0 || found[0].Sequence != after+1) {
			return fmt.Errorf("%w: the changes after %d have been trimmed: load again", storage.ErrNotFound, after)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Watch implements storage.Feed.
func (s *Store) Watch(ctx context.Context) (<-chan struct{}, error) {
	_, leave, err := s.enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	defer leave()
	return s.bell.Listen(ctx), nil
}
