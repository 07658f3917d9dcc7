package authn

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// holder is somebody with a session.
func holder() Principal {
	return Principal{
		Peer: Peer{Certificate: Certificate{
			Serial: "a1b2", Thumbprint: strings.Repeat("0f", 32), NotAfter: time.Now().Add(time.Hour).Truncate(time.Second),
		}},
		TenantID: "t-1", AgentID: "a-1", UserID: "u-1", PasswordVersion: 7,
		SessionID: "s-1", SessionExpires: time.Now().Add(time.Minute).Truncate(time.Second),
	}
}

func newTokens(t testing.TB) (*Tokens, *keyStore) {
	t.Helper()
	keys := &keyStore{}
	return must(NewTokens(domain, must(openKeyring(t, keys, "k")))), keys
}

func TestTokenRoundTrip(t *testing.T) {
	tokens, _ := newTokens(t)
	p := holder()
	token := must(tokens.mint(p))
	if n := len(token.Reveal()); n > maxToken/4 {
		t.Errorf("a token of %d bytes", n)
	}
	got, err := tokens.verify(t.Context(), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "u-1" || got.ID != "s-1" || got.Issuer != domain || got.TenantID != "t-1" || got.AgentID != "a-1" || got.PasswordVersion != 7 ||
		!got.ExpiresAt.Equal(p.SessionExpires) || got.Certificate != (boundCertificate{Serial: "a1b2", NotBefore: unix(p.Certificate.NotBefore), NotAfter: p.Certificate.NotAfter.Unix(), Vouchers: p.Certificate.Vouchers}) {
		t.Errorf("%+v", got)
	}
	if !got.boundTo(p.Certificate.Thumbprint) || got.boundTo(strings.Repeat("0e", 32)) || got.boundTo("") {
		t.Error("the binding is wrong")
	}
	p.Certificate.Thumbprint = "not hexadecimal"
	if _, err := tokens.mint(p); err == nil {
		t.Error("signed without a thumbprint")
	}
	if _, err := NewTokens("", nil); err == nil {
		t.Error("made of nothing")
	}
}

func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, _ := newTokens(t)
		p := holder()
		token := must(tokens.mint(p))
		pass(time.Until(p.SessionExpires) - time.Nanosecond)
		if _, err := tokens.verify(t.Context(), token, nil); err != nil {
			t.Errorf("before its end: %v", err)
		}
		pass(time.Nanosecond)
		if _, err := tokens.verify(t.Context(), token, nil); !reason.Is(err, reason.TokenExpired) {
			t.Errorf("at its end: %v", err)
		}
	})
}

// signed makes a token with the broker's own key and any content.
func signed(t testing.TB, tokens *Tokens, change func(*jwt.Token, *claims)) string {
	t.Helper()
	genuine, err := tokens.verify(t.Context(), must(tokens.mint(holder())), nil)
	if err != nil {
		t.Fatal(err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, &genuine)
	key := tokens.keyring.signing()
	token.Header["kid"] = key.id
	change(token, &genuine)
	return must(token.SignedString([]byte(key.value.Reveal())))
}

func TestTokensRefused(t *testing.T) {
	tokens, keys := newTokens(t)
	good := must(tokens.mint(holder())).Reveal()
	parts := strings.Split(good, ".")
	other := holder()
	other.UserID = "u-2"
	key := tokens.keyring.signing()
	raw := []byte(key.value.Reveal())
	content := func(header, payload string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	}
	payload := string(must(base64.RawURLEncoding.DecodeString(parts[1])))
	sign := func(method jwt.SigningMethod, key any, text string) string {
		return text + "." + base64.RawURLEncoding.EncodeToString(must(method.Sign(text, key)))
	}
	header := fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"JWT"}`, key.id)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	stranger, _ := newTokens(t)
	set := func(f func(*claims)) string { return signed(t, tokens, func(_ *jwt.Token, c *claims) { f(c) }) }
	now := time.Now()
	for name, c := range map[string]struct {
		token string
		want  reason.Reason
	}{
		"empty":                {"", reason.TokenInvalid},
		"text":                 {"token", reason.TokenInvalid},
		"two parts":            {parts[0] + "." + parts[1], reason.TokenInvalid},
		"four parts":           {good + ".x", reason.TokenInvalid},
		"no signature":         {parts[0] + "." + parts[1] + ".", reason.TokenInvalid},
		"signature altered":    {flip(good, len(good)-5), reason.TokenInvalid},
		"loose bits":           {looseBits(good), reason.TokenInvalid},
		"padding":              {good + "=", reason.TokenInvalid},
		"content altered":      {flip(good, len(parts[0])+10), reason.TokenInvalid},
		"other content":        {parts[0] + "." + strings.Split(must(tokens.mint(other)).Reveal(), ".")[1] + "." + parts[2], reason.TokenInvalid},
		"line break":           {good[:40] + "\n" + good[40:], reason.TokenInvalid},
		"over 4 KiB":           {good + strings.Repeat("A", maxToken), reason.TokenInvalid},
		"alg none":             {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, content(`{"alg":"none","kid":"`+key.id+`"}`, payload)), reason.TokenInvalid},
		"alg none, upper case": {content(`{"alg":"NONE","kid":"`+key.id+`"}`, payload) + ".", reason.TokenInvalid},
		"alg HS512":            {sign(jwt.SigningMethodHS512, raw, content(`{"alg":"HS512","kid":"`+key.id+`"}`, payload)), reason.TokenInvalid},
		"alg RS256":            {sign(jwt.SigningMethodRS256, rsaKey, content(`{"alg":"RS256","kid":"`+key.id+`"}`, payload)), reason.TokenInvalid},
		"no alg":               {sign(jwt.SigningMethodHS256, raw, content(`{"kid":"`+key.id+`"}`, payload)), reason.TokenInvalid},
		"alg is a number":      {sign(jwt.SigningMethodHS256, raw, content(`{"alg":1,"kid":"`+key.id+`"}`, payload)), reason.TokenInvalid},
		"no kid":               {sign(jwt.SigningMethodHS256, raw, content(`{"alg":"HS256"}`, payload)), reason.TokenInvalid},
		"kid is a list":        {sign(jwt.SigningMethodHS256, raw, content(`{"alg":"HS256","kid":["`+key.id+`"]}`, payload)), reason.TokenInvalid},
		"other kid":            {sign(jwt.SigningMethodHS256, raw, content(`{"alg":"HS256","kid":"`+newID()+`"}`, payload)), reason.TokenInvalid},
		"another broker's key": {must(stranger.mint(holder())).Reveal(), reason.TokenInvalid},
		"empty key":            {sign(jwt.SigningMethodHS256, []byte{}, content(header, payload)), reason.TokenInvalid},
		"not JSON":             {sign(jwt.SigningMethodHS256, raw, content(header, "x")), reason.TokenInvalid},
		"null":                 {sign(jwt.SigningMethodHS256, raw, content(header, "null")), reason.TokenInvalid},
		"no claims":            {sign(jwt.SigningMethodHS256, raw, content(header, "{}")), reason.TokenInvalid},

		"other issuer":           {set(func(c *claims) { c.Issuer = "other.example" }), reason.TokenInvalid},
		"no issuer":              {set(func(c *claims) { c.Issuer = "" }), reason.TokenInvalid},
		"no expiry":              {set(func(c *claims) { c.ExpiresAt = nil }), reason.TokenInvalid},
		"no beginning":           {set(func(c *claims) { c.NotBefore = nil }), reason.TokenInvalid},
		"expired":                {set(func(c *claims) { c.ExpiresAt = jwt.NewNumericDate(now.Add(-time.Second)) }), reason.TokenExpired},
		"expired, other issuer":  {set(func(c *claims) { c.ExpiresAt, c.Issuer = jwt.NewNumericDate(now.Add(-time.Hour)), "x" }), reason.TokenInvalid},
		"to come":                {set(func(c *claims) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Minute)) }), reason.TokenInvalid},
		"no user":                {set(func(c *claims) { c.Subject = "" }), reason.TokenInvalid},
		"no session":             {set(func(c *claims) { c.ID = "" }), reason.TokenInvalid},
		"no tenant":              {set(func(c *claims) { c.TenantID = "" }), reason.TokenInvalid},
		"no agent":               {set(func(c *claims) { c.AgentID = "" }), reason.TokenInvalid},
		"no certificate":         {set(func(c *claims) { c.Confirmation.Thumbprint = "" }), reason.TokenInvalid},
		"certificate not base64": {set(func(c *claims) { c.Confirmation.Thumbprint = "!" }), reason.TokenInvalid},
		"certificate too short":  {set(func(c *claims) { c.Confirmation.Thumbprint = "AAAA" }), reason.TokenInvalid},
	} {
		got, err := tokens.verify(t.Context(), secret.New(c.token), nil)
		if reason.Of(err) != c.want || !reflect.DeepEqual(got, claims{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err != nil && c.token != "" && len(c.token) > 20 && strings.Contains(err.Error(), c.token[:20]) {
			t.Errorf("%s: the error repeats the token: %v", name, err)
		}
	}
	keys.change(func() { keys.fail = storage.ErrUnavailable })
	if _, err := tokens.verify(t.Context(), secret.New(good), nil); err != nil {
		t.Errorf("a genuine token needs no storage: %v", err)
	}
}

// A token of a key that cannot be looked up now is not refused for good.
func TestTokenOfUnreadableKey(t *testing.T) {
	tokens, keys := newTokens(t)
	other := must(NewTokens(domain, must(openKeyring(t, keys, "k"))))
	if err := other.keyring.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := must(other.mint(holder()))
	keys.change(func() { keys.fail = storage.ErrUnavailable })
	_, err := tokens.verify(t.Context(), token, nil)
	if !reason.Is(err, reason.StorageUnavailable) || !errors.Is(err, storage.ErrUnavailable) || !reason.Transient(err) {
		t.Errorf("%v", err)
	}
}

// flip changes one character to another of the alphabet.
func flip(token string, at int) string {
	c := byte('A')
	if token[at] == c {
		c = 'B'
	}
	return token[:at] + string(c) + token[at+1:]
}

// looseBits changes the bits of the last character that carry nothing.
func looseBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	at := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[at^1])
}

// FuzzAccessToken takes any text for a token: only the one that the broker
// signed is good.
func FuzzAccessToken(f *testing.F) {
	tokens, _ := newTokens(f)
	p := holder()
	p.SessionExpires = time.Now().Add(24 * time.Hour)
	good := must(tokens.mint(p)).Reveal()
	parts := strings.Split(good, ".")
	for _, token := range []string{good, "", "a.b.c", parts[0] + ".." + parts[2], parts[0] + "." + parts[1] + ".", "eyJhbGciOiJub25lIn0." + parts[1] + "."} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		_, err := tokens.verify(t.Context(), secret.New(token), nil)
		if (err == nil) != (token == good) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}

func BenchmarkVerifyToken(b *testing.B) {
	tokens, _ := newTokens(b)
	p := holder()
	p.SessionExpires = time.Now().Add(24 * time.Hour)
	token := must(tokens.mint(p))
	for b.Loop() {
		if _, err := tokens.verify(b.Context(), token, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMemory(t *testing.T) {
	synctest.Test(t, testMemory)
}

func testMemory(t *testing.T) {
	tokens, _ := newTokens(t)
	keyring := tokens.keyring
	token := must(tokens.mint(holder()))
	var memory Memory
	first := must(tokens.verify(t.Context(), token, &memory))
	if again := must(tokens.verify(t.Context(), token, &memory)); again.ID != first.ID || again.Subject != first.Subject {
		t.Errorf("remembered %+v, not %+v", again, first)
	}
	if _, ok := memory.recall(secret.New(token.Reveal()+"x"), keyring); ok {
		t.Error("another token was taken for the one that is remembered")
	}
	// All keys are replaced because one became known: what was verified with
	// them is not remembered past that.
	if err := keyring.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := memory.recall(token, keyring); ok {
		t.Error("a token is remembered whose key is gone")
	}
	if _, err := tokens.verify(t.Context(), token, &memory); !reason.Is(err, reason.TokenInvalid) {
		t.Errorf("a token whose key is gone: %v", err)
	}
	brief := holder()
	short := must(tokens.mint(brief))
	must(tokens.verify(t.Context(), short, &memory))
	pass(time.Until(brief.SessionExpires))
	if _, err := tokens.verify(t.Context(), short, &memory); !reason.Is(err, reason.TokenExpired) {
		t.Errorf("a remembered token at its end: %v", err)
	}
}
