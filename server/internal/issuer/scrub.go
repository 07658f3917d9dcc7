package issuer

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/secret"
)

// maxMessage bounds what an answer can add to an error, in characters.
const maxMessage = 512

// An answer's text is not ours, and it may repeat what was sent: STS explains
// a refused signature by the canonical request, session token and all. Besides
// the keys that made the call, everything that looks like a key is hidden.
var (
	// canonicalEcho is where STS begins to repeat the request.
	canonicalEcho = regexp.MustCompile(`(?is)\s*the (?:canonical string|string.to.sign)\b.*`)
	// longRun is longer than any name or id in an STS message, and shorter
	// than any session token.
	longRun = regexp.MustCompile(`[A-Za-z0-9+/=_%-]{100,}`)
	// keyRun may be a secret key (40 characters). It is hidden only if it
	// mixes the character classes as random text does, so that the ARNs and
	// paths in a message stay readable.
	keyRun = regexp.MustCompile(`[A-Za-z0-9+/=]{40,}`)
)

// scrubber makes foreign text fit to be shown. The zero value knows no keys.
type scrubber struct{ known []secret.String }

// hiding gives a scrubber that also knows the broker's own keys.
func hiding(keys aws.Credentials) scrubber {
	var s scrubber
	for _, k := range []string{keys.SecretAccessKey, keys.SessionToken} {
		if k != "" {
			s.known = append(s.known, secret.New(k))
		}
	}
	return s
}

// line gives the text as one printable line of at most limit characters,
// without anything that is or looks like a secret.
func (s scrubber) line(text string, limit int) string {
	for _, k := range s.known {
		text = strings.ReplaceAll(text, k.Reveal(), secret.Redacted)
	}
	text = canonicalEcho.ReplaceAllString(text, "")
	text = longRun.ReplaceAllString(text, secret.Redacted)
	text = keyRun.ReplaceAllStringFunc(text, func(run string) string {
		if mixed(run) {
			return secret.Redacted
		}
		return run
	})
	return clip(oneLine(text), limit)
}

func mixed(run string) bool {
	return strings.ContainsFunc(run, unicode.IsUpper) &&
		strings.ContainsFunc(run, unicode.IsLower) &&
		strings.ContainsFunc(run, unicode.IsDigit)
}

// oneLine folds white space and drops what does not print, so that an answer
// cannot forge a line in a log.
func oneLine(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	return strings.Join(strings.Fields(text), " ")
}

func clip(text string, limit int) string {
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return text
}
