package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// forms gives a secret in the encodings that software writes texts in, by the
// encoding's name.
func forms(secret []byte) map[string][]byte {
	text := string(secret)
	quoted, _ := json.Marshal(text)
	upper := bytes.ToUpper([]byte(hex.EncodeToString(secret)))
	all := map[string][]byte{
		"plain":                 secret,
		"Go-quoted":             []byte(trimQuotes(strconv.Quote(text))),
		"Go-quoted ASCII":       []byte(trimQuotes(strconv.QuoteToASCII(text))),
		"JSON":                  quoted[1 : len(quoted)-1],
		"hexadecimal":           []byte(hex.EncodeToString(secret)),
		"upper-case hex":        upper,
		"URL query":             []byte(url.QueryEscape(text)),
		"URL path":              []byte(url.PathEscape(text)),
		"printed as bytes":      []byte(strings.Trim(fmt.Sprintf("%d", secret), "[]")),
		"hexadecimal of base64": []byte(hex.EncodeToString([]byte(base64.StdEncoding.EncodeToString(secret)))),
		"UTF-16":                wide(text),
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for shift := range 3 {
			all[fmt.Sprintf("%s shifted by %d", name, shift)] = within(encoding, secret, shift)
		}
	}
	return all
}

func trimQuotes(s string) string { return s[1 : len(s)-1] }

func wide(s string) []byte {
	var out []byte
	for i := range len(s) {
		out = append(out, s[i], 0)
	}
	return out
}

// within is how a secret reads in base64 of a longer text in which it begins at
// the offset: without the characters that it shares with its neighbors.
func within(encoding *base64.Encoding, secret []byte, offset int) []byte {
	encoded := encoding.EncodeToString(append(make([]byte, offset), secret...))
	first := (offset*8 + 5) / 6
	last := (offset + len(secret)) * 8 / 6
	return []byte(encoded[first:last])
}

// leak is a secret found where it must not be.
type leak struct{ secret, form, where string }

// leaks looks for secrets in a text.
func leaks(where string, text []byte, secrets map[string][]byte) (found []leak) {
	for name, secret := range secrets {
		for form, encoded := range forms(secret) {
			if bytes.Contains(text, encoded) {
				found = append(found, leak{name, form, where})
			}
		}
	}
	slices.SortFunc(found, func(a, b leak) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return found
}

// leaksIn looks for secrets in every file below a directory.
func leaksIn(t *testing.T, dir string, secrets map[string][]byte) (found []leak, files int) {
	t.Helper()
	wantOK(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files++
		found = append(found, leaks(strings.TrimPrefix(path, dir+"/"), text, secrets)...)
		return err
	}))
	return found, files
}

// A search that finds nothing must be one that would have found it.
func TestLeaksAreFound(t *testing.T) {
	secrets := map[string][]byte{"password": []byte(`p+s/w=o"r&d? \ ünder`), "key": {0, 1, 2, 253, 254, 255, 65, 66, 67, 68}, "other": []byte("other-secret")}
	const around = "some text before it, %s and some after"
	for name, secret := range secrets {
		for shift := range 7 {
			longer := append(bytes.Repeat([]byte("x"), shift), append(secret, "tail"...)...)
			for form, written := range map[string]string{
				"plain": string(longer), "base64": base64.StdEncoding.EncodeToString(longer), "base64url": base64.URLEncoding.EncodeToString(longer),
				"hex": hex.EncodeToString(longer), "HEX": fmt.Sprintf("%X", longer), "URL": url.QueryEscape(string(longer)), "%q": fmt.Sprintf("%q", longer),
				"%v": fmt.Sprintf("%d", longer),
			} {
				found := leaks("a log", fmt.Appendf(nil, around, written), secrets)
				if len(found) == 0 || found[0].secret != name {
					t.Errorf("%s as %s after %d bytes: found %v", name, form, shift, found)
				}
			}
		}
	}
	if found := leaks("a log", []byte("nothing to see here, REDACTED"), secrets); len(found) != 0 {
		t.Errorf("found %v where nothing is", found)
	}
}
