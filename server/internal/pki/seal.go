package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/stokerd/stoker/server/internal/secret"
)

// sealVersion is the first byte of everything sealed, so that the format can
// change without guessing.
const sealVersion = 1

// ErrSealed says that a sealed key cannot be opened: it was sealed with
// another key, for another purpose, or has been altered. Which one cannot be
// told.
var ErrSealed = errors.New("cannot be opened: the sealing key is another one, or the stored key was altered")

// Sealer encrypts the broker's keys before they are stored, with a key that
// comes from a file or the environment and is never stored itself. It is safe
// for concurrent use and prints as REDACTED.
type Sealer struct{ aead cipher.AEAD }

// NewSealer takes the sealing key: 32 random bytes in base64, standard or URL
// alphabet, as `openssl rand -base64 32` writes them.
func NewSealer(key secret.String) (*Sealer, error) {
	text := strings.TrimRight(strings.TrimSpace(key.Reveal()), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	raw, err := base64.RawStdEncoding.DecodeString(text)
	// The decoder's error would show where the text went wrong, and with it a
	// part of the key.
	if err != nil || len(raw) != 32 {
		return nil, errors.New("the sealing key must be 32 bytes in base64: make one with openssl rand -base64 32")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal encrypts plaintext (AES-256-GCM, random nonce). The purpose is not
// stored; Open must be given the same, so that a key cannot be put to another
// use by moving it in the database.
func (s *Sealer) Seal(purpose string, plaintext []byte) []byte {
	sealed := make([]byte, 1, 1+len(plaintext)+s.aead.Overhead())
	sealed[0] = sealVersion
	return s.aead.Seal(sealed, nil, plaintext, additional(purpose)) //nolint:gosec // this AEAD draws its own nonce
}

// Open decrypts what Seal made for the same purpose; otherwise ErrSealed.
func (s *Sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return nil, ErrSealed
	}
	plaintext, err := s.aead.Open(nil, nil, sealed[1:], additional(purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// additional is what is authenticated beside the text: the format and the
// purpose, which no other use of the sealing key could produce.
func additional(purpose string) []byte {
	return fmt.Appendf(nil, "stoker sealed key %d: %s", sealVersion, purpose)
}

// Format gives REDACTED for every verb.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// LogValue gives REDACTED.
func (s *Sealer) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }
