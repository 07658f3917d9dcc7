package authn

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

func TestCanonicalLogin(t *testing.T) {
	for text, want := range map[string][2]string{
		"alice@acme":  {"alice", "acme"},
		"Alice@ACME":  {"alice", "acme"},
		"a.b_c-d@x-1": {"a.b_c-d", "x-1"},
		"0@0":         {"0", "0"},
		strings.Repeat("a", 64) + "@" + strings.Repeat("b", 31): {strings.Repeat("a", 64), strings.Repeat("b", 31)},
	} {
		login, tenant, err := CanonicalLogin(text)
		if err != nil || login != want[0] || tenant != want[1] {
			t.Errorf("%q: %q, %q, %v", text, login, tenant, err)
		}
	}
	for _, text := range badLogins {
		if login, tenant, err := CanonicalLogin(text); !reason.Is(err, reason.LoginMalformed) || login+tenant != "" {
			t.Errorf("%.80q: %q, %q, %v", text, login, tenant, err)
		}
	}
}

var badLogins = []string{
	"", "alice", "@", "@acme", "alice@", "alice@@acme", "alice@acme@umbra", " alice@acme", "alice@acme ", "al ice@acme",
	".alice@acme", "-alice@acme", "_alice@acme", "alice@-acme", "alice@ac_me", "alice@ac.me", "alice/x@acme", "alice%40@acme", "alice\x00@acme",
	"alice\n@acme", "älice@acme", "ali\u200bce@acme", "\u0430lice@acme", "ＡLICE@acme", "alıce@acme", "İ@acme", "\u212Aate@acme", "alice\xff@acme",
	"*@acme", "${x}@acme", "alice'--@acme",
	strings.Repeat("a", 65) + "@acme", "alice@" + strings.Repeat("b", 32), strings.Repeat("a", 1<<20), strings.Repeat("a", 1<<20) + "@acme",
}

func TestValidLogin(t *testing.T) {
	for s, want := range map[string]bool{"a": true, "a.": true, "0_-": true, "": false, "A": false, ".a": false, strings.Repeat("a", 65): false, "a@b": false} {
		if ValidLogin(s) != want {
			t.Errorf("ValidLogin(%q) = %v", s, !want)
		}
	}
}

func TestParseAuthorization(t *testing.T) {
	if sent, err := parseAuthorization(nil); err != nil || sent.isPassword() || sent.isToken() {
		t.Errorf("nothing: %+v, %v", sent, err)
	}
	for _, scheme := range []string{"Basic", "basic", "BASIC"} {
		value := scheme + " " + base64.StdEncoding.EncodeToString([]byte("Alice@acme:pass:word ü"))
		sent, err := parseAuthorization([]string{value})
		if err != nil || sent.login != "alice" || sent.tenant != "acme" || sent.password.Reveal() != "pass:word ü" || !sent.isPassword() || sent.isToken() {
			t.Errorf("%s: %+v, %v", scheme, sent, err)
		}
	}
	for _, scheme := range []string{"Bearer", "bearer"} {
		sent, err := parseAuthorization([]string{scheme + " abc.def-ghi_j"})
		if err != nil || sent.token.Reveal() != "abc.def-ghi_j" || sent.isPassword() || !sent.isToken() {
			t.Errorf("%s: %+v, %v", scheme, sent, err)
		}
	}
}

func TestParseAuthorizationRefuses(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	good := basic("alice@acme", password)[0]
	for name, values := range map[string][]string{
		"two values":         {good, good},
		"basic and bearer":   {good, "Bearer x"},
		"empty":              {""},
		"scheme alone":       {"Basic"},
		"scheme and space":   {"Basic "},
		"no scheme":          {encode([]byte("alice@acme:" + password))},
		"other scheme":       {"Digest " + encode([]byte("alice@acme:x"))},
		"two spaces":         {"Basic  " + encode([]byte("alice@acme:x"))},
		"tab":                {"Basic\t" + encode([]byte("alice@acme:x"))},
		"not base64":         {"Basic !!!!"},
		"base64 cut off":     {good[:len(good)-1]},
		"base64 and more":    {good + "=="},
		"URL alphabet":       {"Basic " + base64.URLEncoding.EncodeToString([]byte("alice@acme:??>>~~"))},
		"line break":         {good[:20] + "\n" + good[20:]},
		"loose bits":         {"Basic YWxpY2VAYWNtZTp4eR=="},
		"no colon":           {"Basic " + encode([]byte("alice@acme"))},
		"no tenant":          basic("alice", password),
		"bad login":          basic("al ice@acme", password),
		"no password":        basic("alice@acme", ""),
		"not UTF-8":          basic("alice@acme", "\xff\xfe"),
		"trailing line":      basic("alice@acme", password+"\n"),
		"NUL":                basic("alice@acme", "a\x00b"),
		"over 8 KiB":         basic("alice@acme", strings.Repeat("x", 8<<10)),
		"a megabyte":         basic(strings.Repeat("a", 1<<20)+"@acme", password),
		"bearer with blank":  {"Bearer a b"},
		"bearer with umlaut": {"Bearer ä"},
		"bearer of blanks":   {"Bearer  "},
	} {
		sent, err := parseAuthorization(values)
		if !reason.Is(err, reason.LoginMalformed) || sent.isPassword() || sent.isToken() {
			t.Errorf("%s: %+v, %v", name, sent, err)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%s: the answer repeats the password", name)
		}
	}
}

func FuzzCanonicalLogin(f *testing.F) {
	for _, text := range badLogins {
		f.Add(text[:min(len(text), 200)])
	}
	f.Add("Alice.B@acme-1")
	f.Fuzz(func(t *testing.T, text string) {
		login, tenant, err := CanonicalLogin(text)
		if err != nil {
			if !reason.Is(err, reason.LoginMalformed) || len(err.Error()) > 300 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !ValidLogin(login) || !pki.ValidTenant(tenant) || !strings.EqualFold(login+"@"+tenant, text) {
			t.Fatalf("%q: %q, %q", text, login, tenant)
		}
		if l, te, err := CanonicalLogin(login + "@" + tenant); err != nil || l != login || te != tenant {
			t.Fatalf("%q is not canonical: %q, %q, %v", text, l, te, err)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	f.Add(basic("alice@acme", password)[0])
	f.Add("Bearer a.b.c")
	f.Add("Basic ")
	f.Add("basic Og==")
	f.Fuzz(func(t *testing.T, value string) {
		sent, err := parseAuthorization([]string{value})
		if err != nil {
			if !reason.Is(err, reason.LoginMalformed) || len(err.Error()) > 300 {
				t.Fatalf("%q: %v", value, err)
			}
			return
		}
		if sent.isPassword() == sent.isToken() {
			t.Fatalf("%q is both or neither", value)
		}
		if sent.isPassword() {
			if !ValidLogin(sent.login) || sent.password.IsZero() || !utf8.ValidString(sent.password.Reveal()) {
				t.Fatalf("%q: %+v", value, sent)
			}
			again, err := parseAuthorization(basic(sent.login+"@"+sent.tenant, sent.password.Reveal()))
			if err != nil || again.login != sent.login || !again.password.Equal(sent.password) {
				t.Fatalf("%q does not round-trip: %v", value, err)
			}
		}
	})
}
