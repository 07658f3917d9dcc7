package devsts

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm      = "AWS4-HMAC-SHA256"
	terminator     = "aws4_request"
	signTimeFormat = "20060102T150405Z"
	scopeDate      = "20060102"
	// maxPresigned is the longest that a presigned request may be valid.
	maxPresigned = 7 * 24 * time.Hour
)

// authorization is what a signed request claims. Nothing of it is verified.
type authorization struct {
	accessKeyID   string
	scope         scope
	signedHeaders []string
	signature     string
	signedAt      time.Time
	token         string
	// expires is how long a presigned request is valid; 0 for one that is
	// signed in its headers.
	expires time.Duration
}

// scope is what a signing key is good for.
type scope struct{ date, region, service string }

func (s scope) String() string {
	return strings.Join([]string{s.date, s.region, s.service, terminator}, "/")
}

func incomplete(format string, args ...any) error {
	return refuse(http.StatusBadRequest, "IncompleteSignature", format, args...)
}

// readAuthorization reads the claim from the headers or from the query.
func readAuthorization(r *http.Request) (authorization, error) {
	headers, query := r.Header.Values("Authorization"), r.URL.Query()
	presigned := query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature")
	switch {
	case len(headers) == 0 && !presigned:
		return authorization{}, refuse(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	case len(headers) > 1 || len(headers) == 1 && presigned:
		return authorization{}, incomplete("The request is signed more than once.")
	case presigned:
		return parsePresigned(query)
	}
	a, err := parseAuthorization(headers[0])
	if err != nil {
		return authorization{}, err
	}
	if a.signedAt, err = time.Parse(signTimeFormat, r.Header.Get("X-Amz-Date")); err != nil {
		return authorization{}, incomplete("Authorization header requires existence of a 'X-Amz-Date' header in ISO-8601 basic format.")
	}
	a.token = r.Header.Get("X-Amz-Security-Token")
	// What is not signed could have been put there by anybody on the way.
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") && !slices.Contains(a.signedHeaders, lower) {
			return authorization{}, refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The header %s must be signed.", clip(lower))
		}
	}
	return a, nil
}

// parseAuthorization reads an Authorization header.
func parseAuthorization(header string) (authorization, error) {
	var a authorization
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a, incomplete("The Authorization header must begin with %s.", algorithm)
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if _, again := fields[name]; !ok || again {
			return a, incomplete("The Authorization header has a malformed or repeated part.")
		}
		fields[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if fields[name] == "" {
			return a, incomplete("Authorization header requires '%s' parameter.", name)
		}
	}
	if len(fields) != 3 {
		return a, incomplete("The Authorization header has unknown parts.")
	}
	return a, a.fill(fields["Credential"], fields["SignedHeaders"], fields["Signature"])
}

// parsePresigned reads the claim of a presigned request.
func parsePresigned(query url.Values) (authorization, error) {
	var a authorization
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if len(query[name]) != 1 || query.Get(name) == "" {
			return a, incomplete("A presigned request requires one '%s' parameter.", name)
		}
	}
	if query.Get("X-Amz-Algorithm") != algorithm {
		return a, incomplete("X-Amz-Algorithm must be %s.", algorithm)
	}
	var err error
	if a.signedAt, err = time.Parse(signTimeFormat, query.Get("X-Amz-Date")); err != nil {
		return a, incomplete("X-Amz-Date must be in ISO-8601 basic format.")
	}
	// STS takes presigned requests without an expiry too; they are then valid
	// as long as any other signature.
	a.expires = maxClockSkew
	if query.Has("X-Amz-Expires") {
		seconds, err := strconv.Atoi(query.Get("X-Amz-Expires"))
		if err != nil || seconds < 1 || seconds > int(maxPresigned/time.Second) {
			return a, incomplete("X-Amz-Expires must be 1 to %d seconds.", maxPresigned/time.Second)
		}
		a.expires = time.Duration(seconds) * time.Second
	}
	a.token = query.Get("X-Amz-Security-Token")
	return a, a.fill(query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature"))
}

// fill reads the three parts that both ways of signing have.
func (a *authorization) fill(credential, headers, signature string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || parts[0] == "" {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	if parts[4] != terminator {
		return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped with a valid terminator: '%s'.", terminator)
	}
	if len(signature) != 64 || signature != strings.ToLower(signature) {
		return incomplete("The signature must be 64 hexadecimal digits.")
	}
	if _, err := hex.DecodeString(signature); err != nil {
		return incomplete("The signature must be 64 hexadecimal digits.")
	}
	names := strings.Split(headers, ";")
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) || headers != strings.ToLower(headers) {
		return incomplete("SignedHeaders must be lower-case names, sorted and each once.")
	}
	if !slices.Contains(names, "host") {
		return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The header host must be signed.")
	}
	a.accessKeyID, a.signature, a.signedHeaders = parts[0], signature, names
	a.scope = scope{date: parts[1], region: parts[2], service: parts[3]}
	return nil
}
