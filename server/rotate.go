package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
)

// StoredKey is what may be shown of a key that the broker keeps.
type StoredKey struct {
	// Purpose is audit, authority, pages, token, or account/NAME for the key of
	// an account that the broker has rotated.
	Purpose string
	ID      string
	Created time.Time
	// Retired is when it stopped making new signatures; zero: it is in use.
	Retired time.Time
}

// sealPurpose is what a stored key is sealed for.
func sealPurpose(k storage.SealedKey) string {
	if k.Purpose == authn.TokenPurpose {
		return authn.SealPurpose(k.ID)
	}
	return k.Purpose
}

// ListKeys lists the keys that the broker keeps, newest first.
func ListKeys(ctx context.Context, c Config) (keys []StoredKey, err error) {
	err = withStore(ctx, c, func(store storage.Store, _ *pki.Sealer) error {
		listed, err := store.ListKeys(ctx, "")
		for _, k := range listed {
			keys = append(keys, StoredKey{Purpose: k.Purpose, ID: k.ID, Created: k.CreatedAt, Retired: k.RetiredAt})
		}
		return err
	})
	return keys, err
}

// ResealKeys encrypts the keys that the broker keeps under the key in a file, in
// place of the configuration's. All of them or, after an error, none: then the
// old one goes on. No broker may run on the storage meanwhile. It gives how many
// there are.
func ResealKeys(ctx context.Context, c Config, newKeyFile string) (n int, err error) {
	to, err := openSealer(Config{EncryptionKeyFile: newKeyFile})
	if err != nil {
		return 0, err
	}
	err = withStore(ctx, c, func(store storage.Store, from *pki.Sealer) error {
		if err := recordRotation(ctx, store, from, "encryption"); err != nil {
			return err
		}
		return store.ResealKeys(ctx, func(k storage.SealedKey) ([]byte, error) {
			plain, err := from.Open(sealPurpose(k), k.Sealed)
			if err != nil {
				return nil, fmt.Errorf("the broker's %s key %s %w", k.Purpose, k.ID, err)
			}
			n++
			return to.Seal(sealPurpose(k), plain), nil
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// ReplaceTokenKeys makes a new key for access tokens and deletes all others:
// every session ends, and agents log in again. It works while brokers run.
func ReplaceTokenKeys(ctx context.Context, c Config) error {
	return withStore(ctx, c, func(store storage.Store, sealer *pki.Sealer) error {
		if err := recordRotation(ctx, store, sealer, "token"); err != nil {
			return err
		}
		keyring, err := authn.OpenKeyring(ctx, authn.KeyringConfig{Keys: store, Sealer: sealer, SessionLifetime: c.Sessions.Lifetime})
		if err != nil {
			return err
		}
		return keyring.Replace(ctx)
	})
}

// ReplaceAuthority makes a new built-in authority in place of the old one, which
// is deleted. From their next start brokers trust none of the certificates that
// the old one signed, and nobody who trusts the old one trusts them.
func ReplaceAuthority(ctx context.Context, c Config) error {
	if c.TLS != (TLSConfig{}) {
		return errors.New("the configuration names a PKI of your own under tls; replace its files")
	}
	return withStore(ctx, c, func(store storage.Store, sealer *pki.Sealer) error {
		old, err := store.ListKeys(ctx, purposeAuthority)
		if err != nil {
			return err
		}
		current := ""
		for _, k := range old {
			if k.RetiredAt.IsZero() {
				current = k.ID
			}
		}
		if err := recordRotation(ctx, store, sealer, purposeAuthority); err != nil {
			return err
		}
		private, public, err := newAuthorityKey(c.TrustDomain)
		if err != nil {
			return err
		}
		if _, err := store.AddKey(ctx, storage.SealedKey{
			Meta:    storage.Meta{ID: uuid.Must(uuid.NewV7()).String()},
			Purpose: purposeAuthority, Sealed: sealer.Seal(purposeAuthority, private), Public: public,
		}, current); err != nil {
			return fmt.Errorf("storing the new authority: %w", err)
		}
		for _, k := range old {
			if err := store.DeleteKey(ctx, k.ID); err != nil && !errors.Is(err, storage.ErrNotFound) {
				return fmt.Errorf("deleting an old authority: %w", err)
			}
		}
		return nil
	})
}

// DiscardKeys deletes the stored keys that the configuration's encryption key
// does not open, which is what is left where the right one is lost. New ones are
// made at the next start: with another authority all certificates are void, and
// with another audit key the ends of the chains before cannot be verified any
// more. No broker may run on the storage meanwhile. It gives how many were
// deleted.
func DiscardKeys(ctx context.Context, c Config) (n int, err error) {
	err = withStore(ctx, c, func(store storage.Store, sealer *pki.Sealer) error {
		listed, err := store.ListKeys(ctx, "")
		if err != nil {
			return err
		}
		for _, k := range listed {
			if _, err := sealer.Open(sealPurpose(k), k.Sealed); err == nil {
				continue
			}
			if err := store.DeleteKey(ctx, k.ID); err != nil {
				return fmt.Errorf("deleting the broker's %s key %s: %w", k.Purpose, k.ID, err)
			}
			n++
		}
		if n == 0 {
			return nil
		}
		// Only now is there an audit key to record it under.
		return recordRotation(ctx, store, sealer, "all that could not be opened")
	})
	return n, err
}

// withStore opens the storage and the sealer of a configuration for f.
func withStore(ctx context.Context, c Config, f func(storage.Store, *pki.Sealer) error) (err error) {
	sealer, err := openSealer(c)
	if err != nil {
		return err
	}
	store, err := openStorage(ctx, c.Storage, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return f(store, sealer)
}

// recordRotation records that a key is about to be replaced.
func recordRotation(ctx context.Context, store storage.Store, sealer *pki.Sealer, key string) error {
	return recordLocally(ctx, store, sealer, storage.AuditRecord{
		Event: string(audit.KeyRotated), Actor: "local", Detail: map[string]string{"key": key},
	})
}
