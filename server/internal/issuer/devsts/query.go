package devsts

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxBody bounds a request, in bytes. The longest that keeps to the limits of
// every parameter, percent-encoded, fits.
const maxBody = 256 << 10

// maxMembers bounds the index of a list's member.
const maxMembers = 1000

// readBody reads the request's body whole: the signature covers it.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, refuse(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "The request could not be read, or has more than %d bytes.", maxBody)
	}
	if len(body) == 0 {
		return nil, nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse(http.StatusBadRequest, "InvalidQueryParameter", "The body must be application/x-www-form-urlencoded.")
	}
	return body, nil
}

// parameters are those of one call, from the URL and the form. An operation
// reads what it knows; what it leaves over is refused by rest, so that a
// parameter without effect is noticed.
type parameters struct {
	values url.Values
	used   map[string]bool
}

// parseParameters reads the URL's query and the form. A name that occurs
// twice is refused: which of them counts would be a matter of taste. What
// begins with X-Amz- belongs to the signature.
func parseParameters(rawQuery, body string) (*parameters, error) {
	p := &parameters{values: url.Values{}, used: map[string]bool{}}
	for _, source := range []string{rawQuery, body} {
		values, err := url.ParseQuery(source)
		if err != nil {
			return nil, refuse(http.StatusNotFound, "MalformedQueryString", "The query string contains a syntax error.")
		}
		for name, given := range values {
			if strings.HasPrefix(name, "X-Amz-") {
				continue
			}
			if len(given) != 1 || p.values.Has(name) {
				return nil, refuse(http.StatusBadRequest, "InvalidQueryParameter", "The parameter %s occurs more than once.", clip(name))
			}
			p.values[name] = given
		}
	}
	return p, nil
}

// text gives the parameter's value and whether it was passed.
func (p *parameters) text(name string) (string, bool) {
	p.used[name] = true
	return p.values.Get(name), p.values.Has(name)
}

// number gives an integer parameter, or the fallback where it is absent.
func (p *parameters) number(name string, fallback int) (int, error) {
	text, given := p.text(name)
	if !given {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, "MalformedInput", "The value of %s is not an integer.", name)
	}
	return int(n), nil
}

// members gives the prefixes of a list's members in order, such as
// Tags.member.1. An empty list is sent as a parameter without value.
func (p *parameters) members(list string) ([]string, error) {
	if text, given := p.text(list); given && text != "" {
		return nil, refuse(http.StatusBadRequest, "MalformedInput", "%s is a list.", list)
	}
	var indexes []int
	for name := range p.values {
		rest, ok := strings.CutPrefix(name, list+".member.")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ".")
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || n > maxMembers || strconv.Itoa(n) != digits {
			return nil, refuse(http.StatusBadRequest, "MalformedInput", "%s is not a member of a list.", clip(name))
		}
		indexes = append(indexes, n)
	}
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	prefixes := make([]string, len(indexes))
	for i, n := range indexes {
		prefixes[i] = fmt.Sprintf("%s.member.%d", list, n)
	}
	return prefixes, nil
}

// rest refuses parameters that nobody asked for.
func (p *parameters) rest() error {
	var unknown []string
	for name := range p.values {
		if !p.used[name] {
			unknown = append(unknown, clip(name))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return refuse(http.StatusBadRequest, "InvalidQueryParameter", "This STS does not know the parameters %s.", strings.Join(unknown[:min(len(unknown), 10)], ", "))
}

// clip keeps what a caller sent from filling an error message.
func clip(text string) string {
	if runes := []rune(text); len(runes) > 64 {
		return string(runes[:64]) + "..."
	}
	return text
}
