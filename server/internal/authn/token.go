package authn

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

const (
	// maxToken bounds an access token, in bytes; ours have about 600.
	maxToken = 4 << 10
	// replicaSkew is how far the clock of the replica that verifies may be
	// behind that of the one that signed.
	replicaSkew = time.Minute
)

// claims is what an access token says.
type claims struct {
	// Issuer is the trust domain, Subject the user's id, ID the session's.
	jwt.RegisteredClaims
	TenantID        string       `json:"tid"`
	AgentID         string       `json:"aid"`
	PasswordVersion int64        `json:"pwv"`
	Confirmation    confirmation `json:"cnf"`
	// Certificate repeats what Introspect must know of a certificate that it
	// does not see.
	Certificate boundCertificate `json:"crt"`

	// thumbprint is the confirmation's, in hexadecimal as everywhere else; verify
	// sets it.
	thumbprint string
}

// confirmation binds the token to a certificate (RFC 8705, section 3.1).
type confirmation struct {
	// Thumbprint is the SHA-256 of the certificate, base64url.
	Thumbprint string `json:"x5t#S256"`
}

type boundCertificate struct {
	Serial    string `json:"ser"`
	NotBefore int64  `json:"nbf,omitempty"` // Unix seconds
	NotAfter  int64  `json:"exp"`           // Unix seconds
	// Vouchers names the authorities that it was verified by: who asks about
	// the token learns when they are not trusted any more.
	Vouchers string `json:"vch,omitempty"`
}

// begin is when the certificate begins; zero where the token does not say.
func (c boundCertificate) begin() time.Time {
	if c.NotBefore == 0 {
		return time.Time{}
	}
	return time.Unix(c.NotBefore, 0)
}

// Tokens signs and verifies access tokens: HS256, since only the broker reads
// them. It is safe for concurrent use.
type Tokens struct {
	issuer  string
	keyring *Keyring
	parser  *jwt.Parser
}

// NewTokens makes tokens of a trust domain with the keyring's keys.
func NewTokens(trustDomain string, keyring *Keyring) (*Tokens, error) {
	if trustDomain == "" || keyring == nil {
		return nil, errors.New("tokens: a trust domain and a keyring are required")
	}
	return &Tokens{
		issuer:  trustDomain,
		keyring: keyring,
		parser: jwt.NewParser(
			// The one algorithm: a token does not choose how it is verified.
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithIssuer(trustDomain),
			jwt.WithExpirationRequired(),
			jwt.WithNotBeforeRequired(),
			jwt.WithStrictDecoding(),
		),
	}, nil
}

// mint signs a token of the principal's session, which has its id and end.
func (t *Tokens) mint(p Principal) (secret.String, error) {
	thumbprint, err := hex.DecodeString(p.Certificate.Thumbprint)
	if err != nil || len(thumbprint) == 0 {
		return secret.String{}, errors.New("sign an access token: the certificate has no thumbprint")
	}
	key := t.keyring.signing()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    t.issuer,
			Subject:   p.UserID,
			ID:        p.SessionID,
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now.Add(-replicaSkew)),
			ExpiresAt: jwt.NewNumericDate(p.SessionExpires),
		},
		TenantID:        p.TenantID,
		AgentID:         p.AgentID,
		PasswordVersion: p.PasswordVersion,
		Confirmation:    confirmation{Thumbprint: base64.RawURLEncoding.EncodeToString(thumbprint)},
		Certificate: boundCertificate{
			Serial: p.Certificate.Serial, NotBefore: unix(p.Certificate.NotBefore), NotAfter: p.Certificate.NotAfter.Unix(),
			Vouchers: bounded(p.Certificate.Vouchers),
		},
	})
	token.Header["kid"] = key.id
	text, err := token.SignedString([]byte(key.value.Reveal()))
	if err != nil {
		return secret.String{}, fmt.Errorf("sign an access token: %w", err)
	}
	return secret.New(text), nil
}

// maxVouchers bounds what a token says of its certificate's authorities, in
// bytes. Few have more than one chain of two.
const maxVouchers = 1 << 10

// bounded leaves out the chains that are over the bound: the token is good while
// one of the others is.
func bounded(vouchers string) string {
	for len(vouchers) > maxVouchers {
		cut := strings.LastIndexByte(vouchers, ';')
		if cut < 0 {
			break // one chain as long as that is told whole
		}
		vouchers = vouchers[:cut]
	}
	return vouchers
}

// unix is the moment in seconds, 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// verify reads a token that this broker signed and that is in date. It knows
// nothing yet of the certificate and of who still exists. TOKEN_EXPIRED is
// told only of tokens that are right otherwise. What memory has of the same
// token is as good; it may be nil.
func (t *Tokens) verify(ctx context.Context, token secret.String, memory *Memory) (claims, error) {
	text := token.Reveal()
	if len(text) > maxToken {
		return claims{}, reason.New(reason.TokenInvalid, "the access token is over %d bytes; log in again", maxToken)
	}
	if known, ok := memory.recall(token, t.keyring); ok {
		return known, nil
	}
	var found claims
	var keyErr error
	var id string
	_, err := t.parser.ParseWithClaims(text, &found, func(parsed *jwt.Token) (any, error) {
		id, _ = parsed.Header["kid"].(string)
		key, err := t.keyring.verifying(ctx, id)
		keyErr = err
		return []byte(key.value.Reveal()), err
	})
	switch {
	case keyErr != nil && !errors.Is(keyErr, errUnknownKey):
		return claims{}, reason.New(reason.StorageUnavailable, "the broker cannot read its keys; wait").Because(keyErr)
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return claims{}, errTokenExpired()
	case err != nil:
		return claims{}, errTokenInvalid().Because(err)
	}
	found.thumbprint = found.Confirmation.hexadecimal()
	if found.Subject == "" || found.ID == "" || found.TenantID == "" || found.AgentID == "" || found.thumbprint == "" {
		return claims{}, errTokenInvalid()
	}
	memory.keep(token, id, found)
	return found, nil
}

// hexadecimal gives the bound certificate's thumbprint, "" where it is malformed.
func (c confirmation) hexadecimal() string {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(c.Thumbprint)
	if err != nil || len(raw) != 32 {
		return ""
	}
	return hex.EncodeToString(raw)
}

// boundTo says, in constant time, whether the token belongs to a certificate.
func (c claims) boundTo(thumbprint string) bool {
	return subtle.ConstantTimeCompare([]byte(c.thumbprint), []byte(thumbprint)) == 1
}

func errTokenInvalid() *reason.Error {
	return reason.New(reason.TokenInvalid, "the access token was not made by this broker or was altered; log in again")
}

func errTokenExpired() error {
	return reason.New(reason.TokenExpired, "the access token has expired; log in again")
}
