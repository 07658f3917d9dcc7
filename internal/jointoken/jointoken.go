package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	mark         = "stoker-join"
	idLength     = 16
	secretLength = 32
	pinLength    = sha256.Size
	// maxText bounds what Parse looks at; a token has 144 characters.
	maxText = 256
)

// errMalformed never repeats the text: most of it is secret.
var errMalformed = errors.New(`not a join token; it looks like "stoker-join." and three more parts, copy it whole`)

// Token is one invitation. It prints as REDACTED; Reveal gives the text.
type Token struct {
	id, secret, pin []byte
}

// New makes a token with the pin of the broker's authority, in hexadecimal.
func New(pin string) (Token, error) {
	t := Token{id: make([]byte, idLength), secret: make([]byte, secretLength)}
	var err error
	if t.pin, err = hex.DecodeString(pin); err != nil || len(t.pin) != pinLength {
		return Token{}, errors.New("the authority's pin is no SHA-256 in hexadecimal")
	}
	if _, err := rand.Read(t.id); err != nil {
		return Token{}, fmt.Errorf("draw a token id: %w", err)
	}
	if _, err := rand.Read(t.secret); err != nil {
		return Token{}, fmt.Errorf("draw a token secret: %w", err)
	}
	return t, nil
}

// Parse reads a token as Reveal writes it. There is one text for a token.
func Parse(text string) (Token, error) {
	if len(text) > maxText {
		return Token{}, errMalformed
	}
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] != mark {
		return Token{}, errMalformed
	}
	var t Token
	for i, part := range []struct {
		to     *[]byte
		length int
	}{{&t.id, idLength}, {&t.secret, secretLength}, {&t.pin, pinLength}} {
		// The decoder passes over line breaks.
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(parts[i+1])
		if err != nil || len(decoded) != part.length || strings.ContainsAny(parts[i+1], "\r\n") {
			return Token{}, errMalformed
		}
		*part.to = decoded
	}
	return t, nil
}

// Reveal gives the text to hand to the new agent.
func (t Token) Reveal() string {
	encode := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{mark, encode(t.id), encode(t.secret), encode(t.pin)}, ".")
}

// ID is the public part that finds the invitation.
func (t Token) ID() string { return base64.RawURLEncoding.EncodeToString(t.id) }

// Hash is the SHA-256 of the secret: what the broker keeps. The secret is 256
// random bits, so a plain hash cannot be searched.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.secret)
	return sum[:]
}

// Matches compares with a kept hash in constant time.
func (t Token) Matches(hash []byte) bool { return subtle.ConstantTimeCompare(t.Hash(), hash) == 1 }

// Pin is the SHA-256 of the public key of the broker's authority, lower-case
// hexadecimal.
func (t Token) Pin() string { return hex.EncodeToString(t.pin) }

// Format gives REDACTED for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "REDACTED") }

// MarshalText gives REDACTED.
func (t Token) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }
