package jointoken_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/jointoken"
)

const pin = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"

func fresh(t *testing.T) jointoken.Token {
	t.Helper()
	token, err := jointoken.New(pin)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRoundTrip(t *testing.T) {
	made := fresh(t)
	read, err := jointoken.Parse(made.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case read.ID() != made.ID(), read.Pin() != pin, read.Reveal() != made.Reveal():
		t.Error("the token read is not the token made")
	case !read.Matches(made.Hash()):
		t.Error("the secret does not match its own hash")
	case read.Matches(fresh(t).Hash()), read.Matches(nil):
		t.Error("the secret matches another's hash")
	case fresh(t).ID() == made.ID():
		t.Error("two tokens have one id")
	}
}

func TestNewRefusesAWrongPin(t *testing.T) {
	for _, bad := range []string{"", "zz", pin[2:], pin + "00"} {
		if _, err := jointoken.New(bad); err == nil {
			t.Errorf("pin %q was taken", bad)
		}
	}
}

func TestATokenDoesNotPrint(t *testing.T) {
	token := fresh(t)
	secret := strings.Split(token.Reveal(), ".")[2]
	encoded, err := json.Marshal(map[string]any{"token": token})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %q %x", token, token, token, token, token, token), string(encoded)} {
		if strings.Contains(text, secret) || !strings.Contains(text, "REDACTED") {
			t.Errorf("printed %s", text)
		}
	}
}

func malformed(whole string) []string {
	parts := strings.Split(whole, ".")
	return []string{
		"", ".", "...", "stoker-join", "stoker-join...", whole + ".", whole + "A", whole + "\n", " " + whole, whole[:len(whole)-1],
		strings.ToUpper(whole), strings.Replace(whole, "stoker-join", "stoker-leave", 1),
		strings.Join([]string{parts[0], parts[2], parts[1], parts[3]}, "."),
		strings.Join([]string{parts[0], parts[1], parts[2] + "=", parts[3]}, "."),
		strings.Join([]string{parts[0], parts[1], parts[2][:20] + "\n" + parts[2][20:], parts[3]}, "."),
		strings.Repeat("stoker-join.", 1<<16),
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range malformed(fresh(t).Reveal()) {
		if _, err := jointoken.Parse(text); err == nil {
			t.Errorf("%.100q was taken", text)
		} else if len(text) > 20 && strings.Contains(err.Error(), text[15:]) {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	token, err := jointoken.New(pin)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Reveal())
	for _, text := range malformed(token.Reveal()) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if read, err := jointoken.Parse(text); err == nil && read.Reveal() != text {
			t.Errorf("%q is read as %q", text, read.Reveal())
		}
	})
}
