package devsts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// maxClockSkew is how far a signature's time may be from the service's.
const maxClockSkew = 15 * time.Minute

func mismatch(format string, args ...any) error {
	return refuse(http.StatusForbidden, "SignatureDoesNotMatch", format, args...)
}

// authenticate gives whose key signed the request. The order is that of cost
// and of what a stranger may learn: form, key, scope, time, signature, and
// only then the session's end.
func (s *STS) authenticate(r *http.Request, body []byte, now time.Time) (*principal, scope, error) {
	a, err := readAuthorization(r)
	if err != nil {
		return nil, scope{}, err
	}
	caller, err := s.lookUp(a)
	if err != nil {
		return nil, scope{}, err
	}
	if err := s.checkScope(a); err != nil {
		return nil, scope{}, err
	}
	if err := a.checkTime(now); err != nil {
		return nil, scope{}, err
	}
	expected, err := a.resign(r, caller.secretKey, body)
	if err != nil {
		return nil, scope{}, err
	}
	if !hmac.Equal([]byte(expected), []byte(a.signature)) {
		return nil, scope{}, mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if caller.session != nil && !now.Before(caller.session.expires()) {
		return nil, scope{}, refuse(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	}
	s.noteUse(a.accessKeyID, now)
	return caller, a.scope, nil
}

func wrongService() error {
	return mismatch("Credential should be scoped to correct service: 'sts'. ")
}

func (s *STS) checkScope(a authorization) error {
	if _, known := s.services[a.scope.service]; !known && a.scope.service != s3Service {
		return wrongService()
	}
	if a.scope.region == "" || s.config.Region != "" && a.scope.region != s.config.Region {
		return mismatch("Credential should be scoped to a valid region. ")
	}
	if date := a.signedAt.Format(scopeDate); a.scope.date != date {
		return mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			clip(a.scope.date), date, a.signedAt.Format(signTimeFormat))
	}
	return nil
}

// checkTime refuses signatures outside the window around now: a recorded
// request is worth nothing later.
func (a authorization) checkTime(now time.Time) error {
	valid := maxClockSkew
	if a.expires > 0 {
		valid = a.expires
	}
	at := func(t time.Time) string { return t.UTC().Format(signTimeFormat) }
	if oldest := now.Add(-valid); a.signedAt.Before(oldest) {
		return mismatch("Signature expired: %s is now earlier than %s (%s - %d min.)", at(a.signedAt), at(oldest), at(now), valid/time.Minute)
	}
	if newest := now.Add(maxClockSkew); a.signedAt.After(newest) {
		return mismatch("Signature not yet current: %s is still later than %s (%s + %d min.)", at(a.signedAt), at(newest), at(now), maxClockSkew/time.Minute)
	}
	return nil
}

// resign computes the signature that the request should have, with the SDK's
// own signer. It signs a request that has the signed headers and no others, so
// headers that the signer never signs, such as user-agent, cannot be verified.
func (a authorization) resign(r *http.Request, secretKey string, body []byte) (string, error) {
	again, err := a.signedPart(r)
	if err != nil {
		return "", err
	}
	keys := aws.Credentials{AccessKeyID: a.accessKeyID, SecretAccessKey: secretKey}
	digest := sha256.Sum256(body)
	payload := hex.EncodeToString(digest[:])
	var headers, signature string
	if a.expires > 0 {
		signed, _, err := v4.NewSigner().PresignHTTP(r.Context(), keys, again, payload, a.scope.service, a.scope.region, a.signedAt,
			func(o *v4.SignerOptions) { o.DisableHeaderHoisting = true })
		if err != nil {
			return "", fmt.Errorf("sign the request again: %w", err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			return "", fmt.Errorf("sign the request again: %w", err)
		}
		headers, signature = u.Query().Get("X-Amz-SignedHeaders"), u.Query().Get("X-Amz-Signature")
	} else {
		if err := v4.NewSigner().SignHTTP(r.Context(), keys, again, payload, a.scope.service, a.scope.region, a.signedAt); err != nil {
			return "", fmt.Errorf("sign the request again: %w", err)
		}
		mine, err := parseAuthorization(again.Header.Get("Authorization"))
		if err != nil {
			return "", fmt.Errorf("sign the request again: %w", err)
		}
		headers, signature = strings.Join(mine.signedHeaders, ";"), mine.signature
	}
	if headers != strings.Join(a.signedHeaders, ";") {
		return "", mismatch("The signed headers must be present, x-amz-date among them, and not be such as proxies change.")
	}
	return signature, nil
}

// signedPart copies what the signature covers: method, URL and signed headers.
func (a authorization) signedPart(r *http.Request) (*http.Request, error) {
	u := &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	if a.expires > 0 {
		query := r.URL.Query()
		query.Del("X-Amz-Signature")
		u.RawQuery = query.Encode()
	}
	again := (&http.Request{Method: r.Method, Host: r.Host, URL: u, Header: http.Header{}}).WithContext(r.Context())
	for _, name := range a.signedHeaders {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			values := r.Header.Values(name)
			if len(values) == 0 {
				return nil, mismatch("The signed header %s is missing.", clip(name))
			}
			again.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	return again, nil
}
