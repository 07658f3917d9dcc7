package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// RecordCertificate implements storage.Certificates.
func (s *Store) RecordCertificate(ctx context.Context, v storage.Certificate) (storage.Certificate, error) {
	recorded := v
	err := s.write(ctx, "record certificate", moving, func(t *tx) (err error) {
		recorded = v
		if v.AgentID != "" {
			if err := require(t, "agent", "SELECT 1 FROM agents WHERE id = $1", v.AgentID); err != nil {
				return err
			}
		}
		if v.Lineage != "" {
			if recorded.Lineage, err = lineOf(t, v.Lineage); err != nil {
				return err
			}
			dead, err := exists(t, "SELECT 1 FROM certificates WHERE (serial = $1 OR lineage = $1) AND revoked_at IS NOT NULL LIMIT 1", recorded.Lineage)
			if err != nil {
				return err
			}
			if dead {
				return fmt.Errorf("%w: a certificate that it descends from is revoked", storage.ErrConflict)
			}
		}
		return certificates.create(t, &recorded)
	})
	return orZero(recorded, err)
}

// lineOf is the first certificate of the line that the serial is of.
func lineOf(t *tx, serial string) (string, error) {
	c, err := certificates.get(t.ctx, t, "WHERE serial = $1", serial)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && c.Lineage == "":
		return serial, nil
	case err != nil:
		return "", err
	}
	return c.Lineage, nil
}

// revokeOrphans revokes the certificates in date of agents that are about to be
// deleted: they name the agent, and would be good for the next of that name.
// The condition's parameter is $2.
func revokeOrphans(t *tx, condition, id, why string) error {
	ids, err := identifiers.list(t.ctx, t, "UPDATE certificates SET revoked_at = $1, revocation_reason = $3, revision = revision + 1, updated_at = $1 "+
		"WHERE "+condition+" AND revoked_at IS NULL AND (not_after IS NULL OR not_after > $1) RETURNING id", t.now.UnixMicro(), id, why)
	if err != nil {
		return err
	}
	slices.Sort(ids)
	for _, id := range ids {
		t.change(storage.KindCertificate, id)
	}
	return nil
}

// GetCertificate implements storage.Certificates.
func (s *Store) GetCertificate(ctx context.Context, id string) (storage.Certificate, error) {
	return getEntity(ctx, s, certificates, id)
}

// CertificatesOf implements storage.Certificates.
func (s *Store) CertificatesOf(ctx context.Context, agentID string) (found []storage.Certificate, err error) {
	err = s.read(ctx, "list certificates", func(ctx context.Context, q querier) error {
		found, err = certificates.list(ctx, q, certificates.selection()+
			"WHERE agent_id = $1 ORDER BY not_after DESC NULLS LAST, id DESC", agentID)
		return err
	})
	return found, err
}

// RevokeCertificate implements storage.Certificates.
func (s *Store) RevokeCertificate(ctx context.Context, v storage.Certificate) (storage.Certificate, error) {
	var revoked storage.Certificate
	err := s.write(ctx, "revoke certificate", moving, func(t *tx) (err error) {
		if v.RevokedAt.IsZero() {
			v.RevokedAt = t.now
		}
		revoked, err = certificates.get(t.ctx, t, "WHERE serial = $1", v.Serial)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			revoked = v
			err = certificates.create(t, &revoked)
		case err != nil, !revoked.RevokedAt.IsZero():
			return err
		default:
			revoked.RevokedAt, revoked.RevocationReason = v.RevokedAt, v.RevocationReason
			err = certificates.update(t, &revoked)
		}
		if err != nil {
			return err
		}
		// Whoever had the key may have renewed the certificate, also before it
		// became the one that is revoked now.
		line := revoked.Lineage
		if line == "" {
			line = revoked.Serial
		}
		return revokeOrphans(t, "(lineage = $2 OR serial = $2)", line, v.RevocationReason)
	})
	return orZero(revoked, err)
}

// CreateJoinToken implements storage.JoinTokens.
func (s *Store) CreateJoinToken(ctx context.Context, v storage.JoinToken) error {
	return s.write(ctx, "create join token", plain, func(t *tx) error {
		if err := requireTenant(t, v.TenantID); err != nil {
			return err
		}
		return joinTokens.insert(t, &v)
	})
}

// GetJoinToken implements storage.JoinTokens.
func (s *Store) GetJoinToken(ctx context.Context, id string) (found storage.JoinToken, err error) {
	err = s.read(ctx, "get join token", func(ctx context.Context, q querier) error {
		found, err = joinTokens.get(ctx, q, "WHERE id = $1", id)
		return err
	})
	return found, err
}

// UseJoinToken implements storage.JoinTokens.
func (s *Store) UseJoinToken(ctx context.Context, id string, at time.Time) error {
	return s.write(ctx, "use join token", plain, func(t *tx) error {
		if at.IsZero() {
			return fmt.Errorf("%w: the moment of use is missing", storage.ErrInvalid)
		}
		if err := require(t, "join token", "SELECT 1 FROM join_tokens WHERE id = $1", id); err != nil {
			return err
		}
		// Of transactions at once the update of one waits for the other's, and
		// then finds the token used.
		n, err := t.exec("UPDATE join_tokens SET used_at = $1 WHERE id = $2 AND used_at IS NULL", at.UnixMicro(), id)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: the token is used", storage.ErrConflict)
		}
		return err
	})
}

// SweepJoinTokens implements storage.JoinTokens.
func (s *Store) SweepJoinTokens(ctx context.Context, before time.Time) (int64, error) {
	return s.sweep(ctx, joinTokens.table, before)
}

// EndSession implements storage.Sessions.
func (s *Store) EndSession(ctx context.Context, v storage.EndedSession) error {
	return s.write(ctx, "end session", moving, func(t *tx) error {
		known, err := exists(t, "SELECT 1 FROM ended_sessions WHERE id = $1", v.ID)
		if err != nil || known {
			return err
		}
		if err := endedSessions.insert(t, &v); err != nil {
			return err
		}
		t.change(storage.KindSession, v.ID)
		return nil
	})
}

// GetEndedSession implements storage.Sessions.
func (s *Store) GetEndedSession(ctx context.Context, id string) (found storage.EndedSession, err error) {
	err = s.read(ctx, "get ended session", func(ctx context.Context, q querier) error {
		found, err = endedSessions.get(ctx, q, "WHERE id = $1", id)
		return err
	})
	return found, err
}

// SweepSessions implements storage.Sessions.
func (s *Store) SweepSessions(ctx context.Context, before time.Time) (int64, error) {
	return s.sweep(ctx, endedSessions.table, before)
}

// sweep deletes the rows that expired before the moment.
func (s *Store) sweep(ctx context.Context, table string, before time.Time) (n int64, err error) {
	err = s.write(ctx, "sweep "+table, plain, func(t *tx) error {
		n, err = t.exec("DELETE FROM "+table+" WHERE expires_at < $1", before.UnixMicro())
		return err
	})
	return orZero(n, err)
}
