package authn

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

const (
	// maxAuthorization bounds the authorization metadata, in bytes.
	maxAuthorization = 8 << 10
	// maxLogin bounds a login without its tenant, in bytes.
	maxLogin = 64
	// maxWritten bounds login@tenant, in bytes.
	maxWritten = maxLogin + 1 + 31
)

// ValidLogin says whether s is a login in canonical form, without a tenant:
// [a-z0-9][a-z0-9._-]{0,63}.
func ValidLogin(s string) bool {
	if len(s) == 0 || len(s) > maxLogin || strings.IndexByte("._-", s[0]) >= 0 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("._-", c) < 0 {
			return false
		}
	}
	return true
}

// CanonicalLogin reads login@tenant, in either case, and gives both parts in
// canonical form. Only ASCII is lowered: of two texts that look alike at most
// one is a login. Anything else is LOGIN_MALFORMED.
func CanonicalLogin(text string) (login, tenant string, err error) {
	if len(text) > maxWritten {
		return "", "", malformed("the login is over %d characters", maxWritten)
	}
	login, tenant, found := strings.Cut(lowerASCII(text), "@")
	switch {
	case !found:
		return "", "", malformed("the login is not written login@tenant")
	case !ValidLogin(login):
		return "", "", malformed("the login may have a to z, 0 to 9, dot, dash and underscore, at most %d, and begins with a letter or digit", maxLogin)
	case !pki.ValidTenant(tenant):
		return "", "", malformed("what follows the @ is no tenant's name")
	}
	return login, tenant, nil
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// authorization is what a caller sent: a password login, an access token, or
// nothing.
type authorization struct {
	login, tenant string
	password      secret.String
	token         secret.String
}

func (a authorization) isPassword() bool { return a.login != "" }
func (a authorization) isToken() bool    { return !a.token.IsZero() }

// parseAuthorization reads the values of the authorization metadata. It does
// no work that grows with more than the size of what was sent, and answers
// LOGIN_MALFORMED, which never repeats what was sent.
func parseAuthorization(values []string) (authorization, error) {
	switch {
	case len(values) == 0:
		return authorization{}, nil
	case len(values) > 1:
		return authorization{}, malformed("there is more than one authorization value")
	case len(values[0]) > maxAuthorization:
		return authorization{}, malformed("the authorization value is over %d bytes", maxAuthorization)
	}
	scheme, value, found := strings.Cut(values[0], " ")
	if !found || value == "" {
		return authorization{}, malformed("the authorization value is not a scheme, a space and a value")
	}
	switch lowerASCII(scheme) {
	case "basic":
		return parseBasic(value)
	case "bearer":
		return parseBearer(value)
	default:
		return authorization{}, malformed("the authorization scheme is neither Basic nor Bearer")
	}
}

// parseBasic reads base64(login@tenant:password) as RFC 7617 has it.
func parseBasic(value string) (authorization, error) {
	// The decoder passes over line breaks, and so would take two texts for
	// the same.
	if strings.ContainsAny(value, "\r\n") {
		return authorization{}, malformed("the value after Basic is not base64")
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil {
		return authorization{}, malformed("the value after Basic is not base64")
	}
	written, password, found := strings.Cut(string(decoded), ":")
	if !found {
		return authorization{}, malformed("the login has no colon before the password")
	}
	login, tenant, err := CanonicalLogin(written)
	if err != nil {
		return authorization{}, err
	}
	switch {
	case password == "":
		return authorization{}, malformed("the password is empty")
	case !utf8.ValidString(password):
		return authorization{}, malformed("the password is not UTF-8")
	case strings.ContainsFunc(password, isControl):
		return authorization{}, malformed("the password has a control character; was it encoded with a line break at its end?")
	}
	return authorization{login: login, tenant: tenant, password: secret.New(password)}, nil
}

func parseBearer(value string) (authorization, error) {
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return authorization{}, malformed("the value after Bearer is no access token")
		}
	}
	return authorization{token: secret.New(value)}, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func malformed(format string, args ...any) error {
	return reason.New(reason.LoginMalformed, format+"; send Basic base64(login@tenant:password) or Bearer and an access token", args...)
}
