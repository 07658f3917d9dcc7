package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// EncryptionKeyVariable is the environment variable that serves in place of
// Config.EncryptionKeyFile.
const EncryptionKeyVariable = "STOKER_ENCRYPTION_KEY"

// The purposes of the broker's stored keys that this package makes.
const (
	purposeAudit     = "audit"
	purposeAuthority = "authority"
	purposePages     = "pages"
)

// openSealer reads the key that the broker's own keys are encrypted under.
func openSealer(c Config) (*pki.Sealer, error) {
	if c.EncryptionKeyFile == "" {
		value := os.Getenv(EncryptionKeyVariable)
		if value == "" {
			return nil, fmt.Errorf("no encryption key: set encryption_key_file or %s to the output of `openssl rand -base64 32`", EncryptionKeyVariable)
		}
		return pki.NewSealer(secret.New(value))
	}
	if err := private(c.EncryptionKeyFile); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(c.EncryptionKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the encryption key: %w", err)
	}
	sealer, err := pki.NewSealer(secret.New(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.EncryptionKeyFile, err)
	}
	return sealer, nil
}

// private refuses a key file that others can read.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading the encryption key: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&(fs.ModePerm&^0o700) != 0 {
		return fmt.Errorf("%s can be read by others (mode %v): run chmod 600 on it", path, info.Mode().Perm())
	}
	return nil
}

// storedKey is a key of the broker, opened.
type storedKey struct {
	id      string
	private []byte
	public  []byte
}

// obtainKey gives the key in use for a purpose, and makes it if there is none.
// Of several replicas that start together on an empty store one makes the key
// and all use it.
func obtainKey(ctx context.Context, keys storage.Keys, sealer *pki.Sealer, purpose string, generate func() (private, public []byte, err error)) (storedKey, error) {
	for range 3 {
		listed, err := keys.ListKeys(ctx, purpose)
		if err != nil {
			return storedKey{}, fmt.Errorf("reading the broker's %s key: %w", purpose, err)
		}
		for _, k := range listed {
			if !k.RetiredAt.IsZero() {
				continue
			}
			plain, err := sealer.Open(purpose, k.Sealed)
			if err != nil {
				return storedKey{}, fmt.Errorf("the broker's %s key %w", purpose, err)
			}
			return storedKey{k.ID, plain, k.Public}, nil
		}
		plain, public, err := generate()
		if err != nil {
			return storedKey{}, fmt.Errorf("making the broker's %s key: %w", purpose, err)
		}
		_, err = keys.AddKey(ctx, storage.SealedKey{
			Meta:    storage.Meta{ID: uuid.Must(uuid.NewV7()).String()},
			Purpose: purpose, Sealed: sealer.Seal(purpose, plain), Public: public,
		}, "")
		if err != nil && !errors.Is(err, storage.ErrConflict) {
			return storedKey{}, fmt.Errorf("storing the broker's %s key: %w", purpose, err)
		}
	}
	return storedKey{}, fmt.Errorf("the broker's %s key keeps changing; are two brokers with different storage views running?", purpose)
}

// randomKey makes 32 random bytes.
func randomKey() (private, public []byte, err error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return nil, nil, err
	}
	return raw, nil, nil
}

// newAuthorityKey makes an authority: its key and its certificate, in PEM.
func newAuthorityKey(trustDomain string) (private, public []byte, err error) {
	made, err := pki.NewAuthority(trustDomain, time.Now)
	if err != nil {
		return nil, nil, err
	}
	plain, err := made.KeyPEM()
	if err != nil {
		return nil, nil, err
	}
	return []byte(plain.Reveal()), made.CertificatePEM(), nil
}

// obtainAuthority opens the built-in certificate authority, and makes it at
// the first start.
func obtainAuthority(ctx context.Context, keys storage.Keys, sealer *pki.Sealer, trustDomain string) (*pki.Authority, error) {
	key, err := obtainKey(ctx, keys, sealer, purposeAuthority, func() ([]byte, []byte, error) { return newAuthorityKey(trustDomain) })
	if err != nil {
		return nil, err
	}
	authority, err := pki.LoadAuthority(key.public, secret.New(string(key.private)))
	if err != nil {
		return nil, fmt.Errorf("the built-in authority: %w", err)
	}
	if authority.TrustDomain() != trustDomain {
		return nil, fmt.Errorf("the built-in authority in storage is for the trust domain %q, the configuration says %q: a broker's trust domain cannot change",
			authority.TrustDomain(), trustDomain)
	}
	return authority, nil
}
