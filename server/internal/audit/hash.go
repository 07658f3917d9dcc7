package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// What is hashed begins with what it is, so that a seal can never be taken for
// a record's hash nor one version of the encoding for another.
const (
	recordPrefix = "stoker audit record v1\n"
	headPrefix   = "stoker audit head v1\n"
)

// KeySize is the length of the audit key in bytes.
const KeySize = 32

// Hash computes a record's hash: SHA-256, lower-case hexadecimal, over every
// field but Hash itself.
//
// The encoding is unambiguous: a text is its length in bytes (8 bytes, big
// endian) and its bytes; a number 8 bytes; a time one byte 0 where it is zero,
// else one byte 1 and the microseconds since 1970 in 8 bytes; detail the
// number of its entries in 8 bytes and then key and value of each as texts, in
// ascending order of the keys' bytes.
func Hash(r storage.AuditRecord) string {
	var buffer [usualSize]byte
	hash, _ := hashIn(buffer[:0], &r)
	return hash
}

// hashIn is Hash with a buffer, which it gives back grown.
func hashIn(b []byte, r *storage.AuditRecord) (string, []byte) {
	b = encode(slices.Grow(b[:0], usualSize), r)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), b
}

// usualSize is what the encodings of most records fit in, in bytes.
const usualSize = 2048

func encode(b []byte, r *storage.AuditRecord) []byte {
	b = append(b, recordPrefix...)
	for _, f := range fields {
		switch {
		case f.name == hashField:
		case f.text != nil:
			b = appendText(b, *f.text(r))
		case f.number != nil:
			b = appendNumber(b, *f.number(r))
		case f.time != nil:
			b = appendTime(b, *f.time(r))
		default:
			b = appendDetail(b, *f.detail(r))
		}
	}
	return b
}

func appendNumber(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendText(b []byte, s string) []byte {
	return append(appendNumber(b, int64(len(s))), s...)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return appendNumber(append(b, 1), t.UnixMicro())
}

func appendDetail(b []byte, detail map[string]string) []byte {
	b = appendNumber(b, int64(len(detail)))
	var few [8]string // so many need no memory of their own
	keys := slices.AppendSeq(few[:0], maps.Keys(detail))
	slices.Sort(keys)
	for _, key := range keys {
		b = appendText(appendText(b, key), detail[key])
	}
	return b
}

// sealer makes and checks the seals of heads. The first key seals, all check:
// heads of brokers before a change of the key stay good.
type sealer struct{ keys []secret.String }

func newSealer(key secret.String, older []secret.String) (sealer, error) {
	s := sealer{append([]secret.String{key}, older...)}
	for _, k := range s.keys {
		if len(k.Reveal()) != KeySize {
			return sealer{}, errors.New("an audit key must have 32 bytes")
		}
	}
	return s, nil
}

// seal gives the head with its seal: HMAC-SHA-256 over every other field,
// encoded as in Hash.
func (s sealer) seal(h storage.AuditHead) storage.AuditHead {
	h.Seal = mac(s.keys[0], h)
	return h
}

func (s sealer) sealed(h storage.AuditHead) bool {
	for _, key := range s.keys {
		if hmac.Equal(h.Seal, mac(key, h)) {
			return true
		}
	}
	return false
}

func mac(key secret.String, h storage.AuditHead) []byte {
	b := []byte(headPrefix)
	b = appendText(b, h.Writer)
	b = appendNumber(b, h.Sequence)
	b = appendText(b, h.Hash)
	b = appendNumber(b, h.First)
	b = appendText(b, h.FirstPrevHash)
	m := hmac.New(sha256.New, []byte(key.Reveal()))
	m.Write(b) // never fails
	return m.Sum(nil)
}
