package authn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// TokenPurpose is the purpose of token keys in storage.
	TokenPurpose = "token"
	// tokenKeySize is a key's length in bytes: the output of the hash that
	// HS256 uses, below which RFC 7518 allows none.
	tokenKeySize = 32

	// DefaultRotation is how long a key makes new tokens.
	DefaultRotation = 30 * 24 * time.Hour
	// DefaultSessionLifetime is how long a session lasts at most.
	DefaultSessionLifetime = 12 * time.Hour

	// keyringTick is how often the keyring looks whether a rotation or a
	// removal is due, and tries again what failed.
	keyringTick = time.Minute
	// missPause is the least time between two reads of storage because of
	// unknown key ids, which anybody can make up.
	missPause = time.Second
	// missTimeout bounds such a read, which a login waits for.
	missTimeout = 2 * time.Second
)

// errUnknownKey says that no key with this id can have signed a token.
var errUnknownKey = errors.New("no such key")

// Keys is the part of storage that the keyring uses.
type Keys interface {
	AddKey(ctx context.Context, k storage.SealedKey, replaces string) (storage.SealedKey, error)
	ListKeys(ctx context.Context, purpose string) ([]storage.SealedKey, error)
	DeleteKey(ctx context.Context, id string) error
}

// KeyringConfig says what a keyring needs.
type KeyringConfig struct {
	Keys   Keys
	Sealer *pki.Sealer
	// SessionLifetime is the longest life of a token: so long a retired key
	// still verifies. 0 means DefaultSessionLifetime.
	SessionLifetime time.Duration
	// Rotation is how long a key makes new tokens; 0 means DefaultRotation.
	Rotation time.Duration
	Log      *slog.Logger
}

// Keyring holds the keys that sign and verify access tokens. All replicas
// share them through storage, where they are sealed. It is safe for concurrent
// use; looking up a known key takes no lock.
type Keyring struct {
	cfg  KeyringConfig
	ring atomic.Pointer[ring]
	// wake makes Run read the keys again; its one place coalesces.
	wake chan struct{}

	mu       sync.Mutex // over reading storage
	lastMiss time.Time
	missErr  error
}

// ring is one consistent set of keys. It is never changed.
type ring struct {
	current tokenKey
	byID    map[string]tokenKey
}

// tokenKey is one key. value prints as REDACTED.
type tokenKey struct {
	id      string
	value   secret.String
	created time.Time
	// until is when the key stops verifying; zero: it is in use.
	until time.Time
}

// OpenKeyring reads the keys from storage, and makes the first one where there
// is none. Of replicas that start together one makes it and the others use it.
func OpenKeyring(ctx context.Context, cfg KeyringConfig) (*Keyring, error) {
	if cfg.Keys == nil || cfg.Sealer == nil {
		return nil, errors.New("keyring: storage and a sealing key are required")
	}
	if cfg.SessionLifetime <= 0 {
		cfg.SessionLifetime = DefaultSessionLifetime
	}
	if cfg.Rotation <= 0 {
		cfg.Rotation = DefaultRotation
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keyring{cfg: cfg, wake: make(chan struct{}, 1)}
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 || !keys[0].RetiredAt.IsZero() {
		if err := k.add(ctx, ""); err != nil {
			return nil, err
		}
	}
	if err := k.refresh(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Run reads the keys again when Changed has told of a change, rotates the key
// when it is due, and removes keys that no token can need. It goes on through
// failures of storage, which it logs, and returns nil when ctx ends.
func (k *Keyring) Run(ctx context.Context) error {
	ticker := time.NewTicker(keyringTick)
	defer ticker.Stop()
	stale := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			stale = true
		case <-ticker.C:
		}
		if stale {
			stale = k.try(ctx, "refresh", k.Refresh)
		}
		if time.Since(k.ring.Load().current.created) >= k.cfg.Rotation {
			k.try(ctx, "rotate", k.Rotate)
		}
		k.try(ctx, "sweep", k.sweep)
	}
}

// try says whether the step failed.
func (k *Keyring) try(ctx context.Context, what string, step func(context.Context) error) (failed bool) {
	err := step(ctx)
	if err != nil && ctx.Err() == nil {
		k.cfg.Log.Error("cannot "+what+" the token keys: trying again", "err", err)
	}
	return err != nil
}

// Changed is for the directory's observer: a change of a sealed key makes Run
// read the keys again. It does not wait.
func (k *Keyring) Changed(changes []storage.Change) {
	for _, change := range changes {
		if change.Kind == storage.KindSealedKey {
			select {
			case k.wake <- struct{}{}:
			default:
			}
			return
		}
	}
}

// Refresh reads the keys again. On an error those known before stay in use.
func (k *Keyring) Refresh(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refresh(ctx)
}

// Rotate makes a new key, which signs from now on. Tokens made with the old
// one stay good until they expire. If another replica rotates at the same
// time there is one new key.
func (k *Keyring) Rotate(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.add(ctx, k.ring.Load().current.id); err != nil {
		return err
	}
	return k.refresh(ctx)
}

// Replace makes a new key and deletes all others: every session ends at once,
// on all replicas. It is for the case that a key became known.
func (k *Keyring) Replace(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.add(ctx, k.ring.Load().current.id); err != nil {
		return err
	}
	keys, err := k.read(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.RetiredAt.IsZero() {
			continue
		}
		if err := k.cfg.Keys.DeleteKey(ctx, key.ID); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("delete a token key: %w", err)
		}
	}
	return k.refresh(ctx)
}

// sweep deletes the keys whose last token has expired.
func (k *Keyring) sweep(ctx context.Context) error {
	now := time.Now()
	for id, key := range k.ring.Load().byID {
		if key.until.IsZero() || now.Before(key.until) {
			continue
		}
		if err := k.cfg.Keys.DeleteKey(ctx, id); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("delete a token key: %w", err)
		}
		if err := k.Refresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// signing is the key for new tokens.
func (k *Keyring) signing() tokenKey { return k.ring.Load().current }

// verifying finds the key with an id. An unknown one may have been made by
// another replica a moment ago, so that storage is asked, at most once a
// second. errUnknownKey is final; any other error is storage's.
func (k *Keyring) verifying(ctx context.Context, id string) (tokenKey, error) {
	if key, err := k.known(id); err == nil {
		return key, nil
	}
	if uuid.Validate(id) != nil {
		return tokenKey{}, errUnknownKey
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, err := k.known(id); err == nil {
		return key, nil
	}
	if !k.lastMiss.IsZero() && time.Since(k.lastMiss) < missPause {
		if k.missErr != nil {
			return tokenKey{}, k.missErr
		}
		return tokenKey{}, errUnknownKey
	}
	// Not on the caller's context alone: its end must not be remembered as a
	// failure of storage.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), missTimeout)
	defer cancel()
	k.missErr = k.refresh(ctx)
	k.lastMiss = time.Now()
	if k.missErr != nil {
		return tokenKey{}, k.missErr
	}
	return k.known(id)
}

func (k *Keyring) known(id string) (tokenKey, error) {
	key, ok := k.ring.Load().byID[id]
	if !ok || !key.until.IsZero() && !time.Now().Before(key.until) {
		return tokenKey{}, errUnknownKey
	}
	return key, nil
}

// add makes a key in place of the one with the id replaces. That another
// replica was quicker is no error. k.mu is held.
func (k *Keyring) add(ctx context.Context, replaces string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a token key: %w", err)
	}
	value := make([]byte, tokenKeySize)
	if _, err := rand.Read(value); err != nil {
		return fmt.Errorf("make a token key: %w", err)
	}
	sealed := storage.SealedKey{
		Meta:    storage.Meta{ID: id.String()},
		Purpose: TokenPurpose,
		Sealed:  k.cfg.Sealer.Seal(SealPurpose(id.String()), value),
	}
	_, err = k.cfg.Keys.AddKey(ctx, sealed, replaces)
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		return fmt.Errorf("store a token key: %w", err)
	}
	return nil
}

// SealPurpose is what the token key with an id is sealed for: it ties the key to
// its id, so that rows cannot be exchanged.
func SealPurpose(id string) string { return TokenPurpose + "/" + id }

func (k *Keyring) read(ctx context.Context) ([]storage.SealedKey, error) {
	keys, err := k.cfg.Keys.ListKeys(ctx, TokenPurpose)
	if err != nil {
		return nil, fmt.Errorf("read the token keys: %w", err)
	}
	return keys, nil
}

// refresh replaces the ring by what is stored. k.mu is held.
func (k *Keyring) refresh(ctx context.Context) error {
	keys, err := k.read(ctx)
	if err != nil {
		return err
	}
	next := &ring{byID: make(map[string]tokenKey, len(keys))}
	for _, sealed := range keys {
		value, err := k.cfg.Sealer.Open(SealPurpose(sealed.ID), sealed.Sealed)
		if err == nil && len(value) != tokenKeySize {
			err = errors.New("has a wrong length")
		}
		if err != nil {
			err = fmt.Errorf("token key %s %w", sealed.ID, err)
			if sealed.RetiredAt.IsZero() {
				return err
			}
			// Its tokens are lost, the broker is not.
			k.cfg.Log.Warn("a retired token key is left out", "err", err)
			continue
		}
		key := tokenKey{id: sealed.ID, value: secret.New(string(value)), created: sealed.CreatedAt}
		if !sealed.RetiredAt.IsZero() {
			key.until = sealed.RetiredAt.Add(k.cfg.SessionLifetime)
		}
		next.byID[key.id] = key
		if key.until.IsZero() && next.current.id == "" {
			next.current = key
		}
	}
	if next.current.id == "" {
		return errors.New("there is no token key in use")
	}
	k.ring.Store(next)
	return nil
}
