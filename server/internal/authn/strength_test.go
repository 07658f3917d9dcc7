package authn

import (
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

func TestCheckStrength(t *testing.T) {
	for _, good := range []string{
		password, "correct horse battery staple", "Tr0ub4dor&3-and-more", "gelb laufen Mauer 88 Zug", "日本語のパスワードですよ長い", strings.Repeat("xk7Q!", 50) + "zw",
		"vK2mQ9xLpR4t",
	} {
		if err := CheckStrength("alice", "acme", secret.New(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for name, bad := range map[string]string{
		"empty":              "",
		"short":              "xK9#mQ2$vL7",
		"long":               strings.Repeat("xK9#mQ2$vL7", 24),
		"control character":  "xK9#mQ2$vL7\tzz",
		"not UTF-8":          "xK9#mQ2$vL7\xff\xff",
		"one character":      "aaaaaaaaaaaaaaaa",
		"two in turn":        "abababababab",
		"blanks":             "            ",
		"alphabet":           "abcdefghijklmnop",
		"backwards":          "987654321098",
		"digits":             "123456789012",
		"keyboard":           "qwertyuiopasdf",
		"keyboard, German":   "QWERTZuiop1234",
		"keyboard, columns":  "1qaz2wsx3edc",
		"signs":              "!@#$%^&*()!@#",
		"word and digits":    "password1234",
		"word twice":         "passwordpassword",
		"word with signs":    "P@ssw0rd!!!!",
		"word and year":      "Summer2024!!!",
		"words":              "DragonMonkey123",
		"words and blanks":   "iloveyou baby",
		"well known":         "letmein12345",
		"product":            "StokerBackup1",
		"login":              "alice@acme",
		"login and tenant":   "alice@acme.com",
		"login repeated":     "alicealicealice",
		"tenant and digits":  "acme-acme-2025",
		"umlaut in a run":    "üüüüüüüüüüüüüü",
		"letters for digits": "m0nk3y5unsh1ne",
	} {
		err := CheckStrength("alice", "acme", secret.New(bad))
		if !reason.Is(err, reason.PasswordWeak) {
			t.Errorf("%s: %q: %v", name, bad, err)
		}
		if err != nil && len(bad) > 3 && strings.Contains(strings.ToLower(err.Error()), strings.ToLower(bad)) {
			t.Errorf("%s: the answer repeats it: %v", name, err)
		}
	}
	if err := CheckStrength("maximilian.mustermann", "umbra", secret.New("Maximilian.Mustermann")); !reason.Is(err, reason.PasswordWeak) {
		t.Errorf("the login as password: %v", err)
	}
}

func TestCommonWords(t *testing.T) {
	seen, count := map[string]bool{}, 0
	for first, words := range commonWords {
		for _, word := range words {
			if word[0] != first || word != strings.ToLower(word) || len(word) < 3 {
				t.Errorf("%q stands wrong in the list", word)
			}
			seen[word] = true
			count++
		}
	}
	if len(seen) < 400 || count > 2*len(seen) {
		t.Errorf("%d words, %d of them different", count, len(seen))
	}
}

func TestGenerate(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		made, err := Generate()
		if err != nil {
			t.Fatal(err)
		}
		if text := made.Reveal(); len(text) != 23 || seen[text] {
			t.Fatalf("%q", text)
		} else if err := CheckStrength("alice", "acme", made); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		seen[made.Reveal()] = true
	}
}

func FuzzCheckStrength(f *testing.F) {
	f.Add("alice", "acme", password)
	f.Add("", "", "\xff")
	f.Fuzz(func(t *testing.T, login, tenant, text string) {
		if err := CheckStrength(login, tenant, secret.New(text)); err != nil && !reason.Is(err, reason.PasswordWeak) {
			t.Fatal(err)
		}
	})
}
