package authn

import (
	"crypto/rand"
	_ "embed"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

const (
	// minPassword and maxPassword bound a new password, in characters.
	minPassword = 12
	maxPassword = 256
	// minPieces is the least that must be left of a new password when each
	// well-known part of it counts as one character.
	minPieces = 8
)

//go:embed common.txt
var commonText string

// commonWords is the list by first letter, and each word once.
var commonWords = func() map[byte][]string {
	words := map[byte][]string{}
	for line := range strings.Lines(commonText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, word := range strings.Fields(line) {
			words[word[0]] = append(words[word[0]], word)
		}
	}
	return words
}()

// rows are the sequences in which keys or characters lie side by side.
var rows = []string{
	"abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm",
	"azertyuiop", "qsdfghjklm", "wxcvbn", "1qaz2wsx3edc4rfv5tgb6yhn", "!@#$%^&*()", `!"$%&/()=`,
}

// CheckStrength refuses a new password that is too short or long, or that
// guessers try early: words of a list, the login's or the tenant's name,
// sequences, repetitions and years, alone or strung together. The answer is
// PASSWORD_WEAK and never repeats the password. Existing passwords are not
// checked.
func CheckStrength(login, tenant string, password secret.String) error {
	text := password.Reveal()
	weak := func(format string, args ...any) error { return reason.New(reason.PasswordWeak, format, args...) }
	length := utf8.RuneCountInString(text)
	switch {
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return weak("the password has characters that cannot be typed; choose another")
	case length < minPassword:
		return weak("the password is under %d characters; choose a longer one", minPassword)
	case length > maxPassword:
		return weak("the password is over %d characters; choose a shorter one", maxPassword)
	}
	text = strings.ToLower(text)
	for _, name := range []string{login, tenant, login + "@" + tenant} {
		if name != "" && text == strings.ToLower(name) {
			return weak("the password is the login's or the tenant's name; choose another")
		}
	}
	for _, read := range readings {
		if pieces(read(text), []string{login, tenant}) < minPieces {
			return weak("the password is made of well-known words and sequences; choose another")
		}
	}
	return nil
}

// readings are the ways to read a password: as it is, and with the digits and
// signs that stand for letters as those letters.
var readings = []func(string) string{
	func(s string) string { return s },
	strings.NewReplacer("0", "o", "1", "l", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i").Replace,
	strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "l").Replace,
}

// pieces counts the characters of a lower-case text, where a part that is well
// known counts as one, and a text that repeats counts once.
func pieces(text string, names []string) int {
	text = unit(text)
	count := 0
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		text = text[max(size, known(text, names)):]
		count++
	}
	return count
}

// known is the length of the longest well-known part that text begins with.
func known(text string, names []string) int {
	longest := max(run(text), sequence(text), year(text))
	for _, word := range commonWords[text[0]] {
		if len(word) > longest && strings.HasPrefix(text, word) {
			longest = len(word)
		}
	}
	for _, name := range names {
		if len(name) > max(longest, 2) && strings.HasPrefix(text, name) {
			longest = len(name)
		}
	}
	return longest
}

// unit is the shortest text of which text is a repetition.
func unit(text string) string {
	for n := 1; n <= len(text)/2; n++ {
		if len(text)%n == 0 && strings.Repeat(text[:n], len(text)/n) == text {
			return text[:n]
		}
	}
	return text
}

// run is the length in bytes of the first character's repetition, from two on.
func run(text string) int {
	_, size := utf8.DecodeRuneInString(text)
	n := size
	for strings.HasPrefix(text[n:], text[:size]) {
		n += size
	}
	return n
}

// sequence is how far text follows a row in either direction, from three on.
func sequence(text string) int {
	longest := 0
	for _, row := range rows {
		for at := range len(row) {
			if row[at] == text[0] {
				longest = max(longest, along(text, row, at, 1), along(text, row, at, -1))
			}
		}
	}
	if longest < 3 {
		return 0
	}
	return longest
}

func along(text, row string, at, step int) int {
	n := 0
	for n < len(text) && at >= 0 && at < len(row) && text[n] == row[at] {
		n, at = n+1, at+step
	}
	return n
}

// year is 4 where text begins with a year that somebody alive remembers.
func year(text string) int {
	if len(text) < 4 || text[:2] != "19" && text[:2] != "20" || !digit(text[2]) || !digit(text[3]) {
		return 0
	}
	return 4
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// Generate makes a password of 20 random characters in groups of five, from an
// alphabet of 31 without look-alikes: 99 bits.
func Generate() (secret.String, error) {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
	var out strings.Builder
	for n := range 20 {
		if n > 0 && n%5 == 0 {
			out.WriteByte('-')
		}
		at, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return secret.String{}, err
		}
		out.WriteByte(alphabet[at.Int64()])
	}
	return secret.New(out.String()), nil
}
