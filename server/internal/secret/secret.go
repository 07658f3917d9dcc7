package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every secret prints as.
const Redacted = "REDACTED"

// errDecode refuses a secret in a decoder: a secret enters the broker by New,
// where its source can be seen, never as a side effect of decoding a message.
var errDecode = errors.New("a secret cannot be decoded in place")

// String is a secret text. The zero value is the empty secret. It is
// comparable with Equal alone; == would leak timing.
type String struct {
	_     [0]func() // forbids ==
	value *string   // a pointer, so that reflection-based printers show an address
}

// New wraps a text.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{value: &s}
}

// Reveal gives the text back. The caller owns what happens to it.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero says whether the secret is empty.
func (s String) IsZero() bool { return s.value == nil }

// Equal compares in constant time for texts of equal length.
func (s String) Equal(t String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(t.Reveal())) == 1
}

// String gives REDACTED.
func (s String) String() string { return Redacted }

// GoString gives REDACTED for %#v.
func (s String) GoString() string { return Redacted }

// Format gives REDACTED for every verb.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalText gives REDACTED.
func (s String) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON gives "REDACTED".
func (s String) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalYAML gives REDACTED.
func (s String) MarshalYAML() (any, error) { return Redacted, nil }

// UnmarshalText always fails.
func (s *String) UnmarshalText([]byte) error { return errDecode }

// LogValue gives REDACTED.
func (s String) LogValue() slog.Value { return slog.StringValue(Redacted) }
