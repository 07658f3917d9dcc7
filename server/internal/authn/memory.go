package authn

import (
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
)

// Memory keeps the last access token of a connection and what it said, so that
// the next call with the same one costs a comparison and not its verification.
// It decides nothing: whether the token's owner is still good is asked with each
// call. The zero Memory is empty; it is safe for concurrent use, and must not
// be shared between connections.
type Memory struct {
	last atomic.Pointer[remembered]
}

// remembered is a token that was verified. It is never changed.
type remembered struct {
	token  secret.String
	key    string // the id of the key that it was verified with
	claims claims
}

// recall gives the claims of a token that was verified before, if they can
// still be: the key is one that verifies, and the token is in date.
func (m *Memory) recall(token secret.String, keys *Keyring) (claims, bool) {
	if m == nil {
		return claims{}, false
	}
	r := m.last.Load()
	if r == nil || !r.token.Equal(token) || !time.Now().Before(r.claims.ExpiresAt.Time) {
		return claims{}, false
	}
	if _, err := keys.known(r.key); err != nil {
		return claims{}, false
	}
	return r.claims, true
}

// keep remembers a token that has just been verified.
func (m *Memory) keep(token secret.String, key string, found claims) {
	if m != nil {
		m.last.Store(&remembered{token: token, key: key, claims: found})
	}
}
