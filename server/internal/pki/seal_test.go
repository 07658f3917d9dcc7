package pki_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
)

func newSealer(t testing.TB, fill byte) *pki.Sealer {
	t.Helper()
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32))
	return must[*pki.Sealer](t)(pki.NewSealer(secret.New(key)))
}

func TestSeal(t *testing.T) {
	s := newSealer(t, 1)
	plain := []byte("a signing key")
	sealed := s.Seal("token/1", plain)
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, s.Seal("token/1", plain)) {
		t.Fatal("it is not encrypted with a nonce of its own")
	}
	got, err := s.Open("token/1", sealed)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	altered := bytes.Clone(sealed)
	altered[len(altered)-1] ^= 1
	version := bytes.Clone(sealed)
	version[0]++
	for name, c := range map[string]struct {
		s       *pki.Sealer
		purpose string
		sealed  []byte
	}{
		"other key":     {newSealer(t, 2), "token/1", sealed},
		"other purpose": {s, "token/2", sealed},
		"altered":       {s, "token/1", altered},
		"other version": {s, "token/1", version},
		"cut":           {s, "token/1", sealed[:10]},
		"empty":         {s, "token/1", nil},
	} {
		if _, err := c.s.Open(c.purpose, c.sealed); !errors.Is(err, pki.ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewSealer(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16)
	for _, text := range []string{
		base64.StdEncoding.EncodeToString(raw) + "\n", base64.RawStdEncoding.EncodeToString(raw),
		base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
	} {
		s, err := pki.NewSealer(secret.New(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if _, err := must[*pki.Sealer](t)(pki.NewSealer(secret.New(base64.StdEncoding.EncodeToString(raw)))).Open("p", s.Seal("p", nil)); err != nil {
			t.Errorf("%q is another key", text)
		}
	}
	for _, text := range []string{"", "canary", base64.StdEncoding.EncodeToString(raw[:16]), strings.Repeat("!", 44)} {
		if _, err := pki.NewSealer(secret.New(text)); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSealerIsNotPrinted(t *testing.T) {
	s := newSealer(t, 'K')
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "sealer", s)
	if printed := fmt.Sprintf("%v %+v %#v", s, s, s) + log.String(); strings.Contains(printed, "75 75") || strings.Contains(printed, "KK") || !strings.Contains(printed, secret.Redacted) {
		t.Errorf("printed %s", printed)
	}
}

func FuzzOpenSealed(f *testing.F) {
	s := newSealer(f, 3)
	f.Add([]byte(nil))
	f.Add(s.Seal("other", []byte("x")))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if plain, err := s.Open("purpose", sealed); err == nil {
			t.Fatalf("opened a forgery: %q", plain)
		}
	})
}
