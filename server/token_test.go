package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// contents reads what a token says, without verifying it.
func contents(t *testing.T, token string) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser(jwt.WithJSONNumber()).ParseUnverified(token, claims)
	wantOK(t, err)
	return claims
}

// mint signs claims with the broker's own key.
func mint(t *testing.T, b *brokertest.Broker, claims jwt.MapClaims) string {
	t.Helper()
	id, key := b.TokenKey()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = id
	text, err := token.SignedString(key)
	wantOK(t, err)
	return text
}

// edited is the good token's contents, changed and signed by the broker's key.
func edited(t *testing.T, b *brokertest.Broker, good string, change func(jwt.MapClaims)) string {
	claims := contents(t, good)
	change(claims)
	return mint(t, b, claims)
}

func TestAccessTokensThatAreRefused(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme, other := join(t, b, "acme", time.Hour).session(t), join(t, b, "other", time.Hour).session(t)
	desktop := acme.with(b, b.Agent("acme", "desktop")).session(t)
	renewed := acme.with(b, b.Certify("acme", "laptop"))
	part := strings.Split(acme.token, ".")
	now := time.Now().Unix()
	set := func(name string, value any) string {
		return edited(t, b, acme.token, func(c jwt.MapClaims) { c[name] = value })
	}
	for _, c := range []struct {
		name   string
		caller agent
		token  string
		want   reason.Reason
	}{
		{"of another agent", acme, desktop.token, reason.TokenCertificateBind},
		{"of another tenant", acme, other.token, reason.TokenCertificateBind},
		{"of the certificate before", renewed, acme.token, reason.TokenCertificateBind},
		{"expired", acme, edited(t, b, acme.token, func(c jwt.MapClaims) { c["exp"], c["nbf"], c["iat"] = now-1, now-100, now-100 }), reason.TokenExpired},
		{"not yet begun", acme, set("nbf", now+100), reason.TokenInvalid},
		{"without an end", acme, edited(t, b, acme.token, func(c jwt.MapClaims) { delete(c, "exp") }), reason.TokenInvalid},
		{"without a certificate", acme, edited(t, b, acme.token, func(c jwt.MapClaims) { delete(c, "cnf") }), reason.TokenInvalid},
		{"of another broker", acme, set("iss", "other.example"), reason.TokenInvalid},
		{"of an unknown user", acme, set("sub", uuid.NewString()), reason.UserDisabled},
		{"of a deleted tenant of the same name", acme, set("tid", uuid.NewString()), reason.TokenInvalid},
		{"of another tenant's user", acme, set("sub", contents(t, other.token)["sub"]), reason.UserDisabled},
		{"with a payload of its own", acme, part[0] + "." + payload(t, acme.token) + "." + part[2], reason.TokenInvalid},
		{"with a changed signature", acme, part[0] + "." + part[1] + "." + flip(part[2]), reason.TokenInvalid},
		{"without a signature", acme, part[0] + "." + part[1] + ".", reason.TokenInvalid},
		{"unsigned by its own word", acme, unsigned(t, acme.token), reason.TokenInvalid},
		{"under a key of its own", acme, ownKey(t, b, acme.token), reason.TokenInvalid},
		{"under an unknown key", acme, unknownKey(t, acme.token), reason.TokenInvalid},
		{"twice", acme, acme.token + "." + acme.token, reason.TokenInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := c.caller
			caller.token = c.token
			st := wantReason(t, caller.whoami(caller.ctx(t)), c.want)
			nothingOf(t, "the answer", st.String(), map[string]string{"token": c.token, "signature": part[2]})
			_, err := caller.fetch(t, "nightly")
			wantReason(t, err, c.want)
			wantReason(t, opened(t, caller), c.want)
		})
	}
	acme.works(t)
	// Whoever was refused made the broker record it once, not each time.
	if got := records(t, b, "session.refused", "acme", "laptop"); len(got) == 0 || len(got) > 10 {
		t.Errorf("%d records", len(got))
	}
}

func payload(t *testing.T, token string) string {
	t.Helper()
	claims := contents(t, token)
	claims["exp"] = time.Now().Add(1000 * time.Hour).Unix()
	text, err := json.Marshal(claims)
	wantOK(t, err)
	return base64.RawURLEncoding.EncodeToString(text)
}

// flip changes the first character of a signature.
func flip(signature string) string {
	if signature[0] == 'A' {
		return "B" + signature[1:]
	}
	return "A" + signature[1:]
}

func unsigned(t *testing.T, token string) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodNone, contents(t, token)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	wantOK(t, err)
	return text
}

func ownKey(t *testing.T, b *brokertest.Broker, good string) string {
	t.Helper()
	id, _ := b.TokenKey()
	return signed(t, good, id)
}

func unknownKey(t *testing.T, good string) string {
	t.Helper()
	return signed(t, good, uuid.NewString())
}

// signed signs what a good token says under a key that is not the broker's.
func signed(t *testing.T, good, id string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, contents(t, good))
	token.Header["kid"] = id
	key := sha256.Sum256([]byte("guessed"))
	text, err := token.SignedString(key[:])
	wantOK(t, err)
	return text
}

// A token dies with the session, the user, the password and the tenant, though
// nobody who verifies it asks the database.
func TestAccessTokenDiesAtOnce(t *testing.T) {
	b := site(t, brokertest.Options{})
	for i, c := range cutoffs {
		t.Run(c.name, func(t *testing.T) {
			acme := join(t, b, fmt.Sprintf("acme-%d", i), time.Hour).session(t)
			acme.works(t)
			c.do(t, b, acme)
			wantReason(t, acme.whoami(acme.ctx(t)), c.want)
			_, err := acme.fetch(t, "nightly")
			wantReason(t, err, c.want)
		})
	}
}

func deleteSession(t testing.TB, a agent) {
	t.Helper()
	_, err := stokerv1.NewSessionServiceClient(a.conn).DeleteSession(a.ctx(t), &stokerv1.DeleteSessionRequest{})
	wantOK(t, err)
}
