package devsts

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
)

// maxTokenSize is the longest session token, in bytes.
const maxTokenSize = 4096

// session is what a session token carries: enough to know the session again,
// with its policy and tags, without remembering it.
type session struct {
	Kind           principalKind `json:"k"`
	Name           string        `json:"n"`
	Role           string        `json:"r,omitempty"`
	Caller         string        `json:"c"`
	Policy         string        `json:"p,omitempty"`
	Tags           []Tag         `json:"t,omitempty"`
	Transitive     []string      `json:"tt,omitempty"` // tag keys
	SourceIdentity string        `json:"s,omitempty"`
	IssuedUnix     int64         `json:"i"`
	ExpiresUnix    int64         `json:"e"`
}

func (s *session) expires() time.Time { return time.Unix(s.ExpiresUnix, 0).UTC() }

func (s *session) issued() time.Time { return time.Unix(s.IssuedUnix, 0).UTC() }

// sealer makes session tokens and their secret keys out of one secret, so that
// neither has to be kept. Only who knows the secret can make or read a token.
type sealer struct {
	tokens cipher.AEAD
	keys   []byte
}

func newSealer(seal secret.String) (sealer, error) {
	derive := func(use string) ([]byte, error) {
		return hkdf.Key(sha256.New, []byte(seal.Reveal()), nil, "stoker devsts "+use, 32)
	}
	tokenKey, err := derive("session token")
	if err != nil {
		return sealer{}, fmt.Errorf("derive the token key: %w", err)
	}
	secretKey, err := derive("secret access key")
	if err != nil {
		return sealer{}, fmt.Errorf("derive the key of secret keys: %w", err)
	}
	block, err := aes.NewCipher(tokenKey)
	if err != nil {
		return sealer{}, fmt.Errorf("make the token cipher: %w", err)
	}
	tokens, err := cipher.NewGCM(block)
	if err != nil {
		return sealer{}, fmt.Errorf("make the token cipher: %w", err)
	}
	return sealer{tokens: tokens, keys: secretKey}, nil
}

// secretKey gives the secret key of a session's access key id: 40 characters,
// as AWS's are.
func (s sealer) secretKey(accessKeyID string) string {
	mac := hmac.New(sha256.New, s.keys)
	mac.Write([]byte(accessKeyID))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)[:30])
}

// token gives the session's token of at least minimum bytes. It is bound to
// the access key id: with another one it does not open.
func (s sealer) token(accessKeyID string, content *session, minimum int) (string, error) {
	plain, err := json.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("write the session token: %w", err)
	}
	packed := deflate(plain)
	// What follows the compressed stream's end is not read.
	if raw := (minimum+3)/4*3 - s.tokens.NonceSize() - s.tokens.Overhead(); len(packed) < raw {
		packed = append(packed, make([]byte, raw-len(packed))...)
	}
	nonce := make([]byte, s.tokens.NonceSize())
	_, _ = rand.Read(nonce) // never fails: it ends the program instead
	return base64.StdEncoding.EncodeToString(s.tokens.Seal(nonce, nonce, packed, []byte(accessKeyID))), nil
}

var errForeignToken = errors.New("the session token is not one of this STS")

// open reads a token of this STS for this access key id.
func (s sealer) open(accessKeyID, token string) (*session, error) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) < s.tokens.NonceSize() {
		return nil, errForeignToken
	}
	packed, err := s.tokens.Open(nil, raw[:s.tokens.NonceSize()], raw[s.tokens.NonceSize():], []byte(accessKeyID))
	if err != nil {
		return nil, errForeignToken
	}
	var content session
	if err := json.NewDecoder(flate.NewReader(bytes.NewReader(packed))).Decode(&content); err != nil {
		return nil, fmt.Errorf("read the session token: %w", err)
	}
	return &content, nil
}

// deflate packs bytes as small as this STS can.
func deflate(plain []byte) []byte {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	// A bytes.Buffer takes everything.
	_, _ = w.Write(plain)
	_ = w.Close()
	return packed.Bytes()
}
