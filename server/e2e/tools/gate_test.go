//go:build unix

package tools_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/stokerd/stoker/internal/partner/minio"
	"github.com/stokerd/stoker/internal/polling"
)

// gate stands before MinIO, as S3 and as STS, and does what MinIO does not do
// as AWS does: credentials that live seconds instead of fifteen minutes at the
// least, and the answer ExpiredToken once they are over. The credentials are
// MinIO's own, and so is every other answer. It writes down which keys each
// request was signed with.
type gate struct {
	URL    string
	target *url.URL
	keys   aws.Credentials
	region string

	mu       sync.Mutex
	sessions map[string]*session // by access key id
}

// session is one set of keys that the gate has seen issued.
type session struct {
	prefix   string // what its policy opens
	expires  time.Time
	last     time.Time // when it was last used
	requests int       // that were passed on
	expired  int       // that were refused, since the keys were over
	denied   int       // that MinIO refused with 403
}

func newGate(t testing.TB, s3 *minio.Server) *gate {
	t.Helper()
	target, err := url.Parse(s3.Endpoint)
	must(t, err)
	g := &gate{
		target: target, region: s3.Region, sessions: make(map[string]*session),
		keys: aws.Credentials{AccessKeyID: s3.AccessKey, SecretAccessKey: s3.SecretKey},
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The headers are signed: nothing is added to them.
	transport.DisableCompression, transport.MaxIdleConnsPerHost, transport.Proxy = true, 64, nil
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusForbidden {
				g.note(keyOf(r.Request), func(s *session) { s.denied++ })
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/" {
			g.issue(w, r)
			return
		}
		if g.over(keyOf(r)) {
			// A client that is still sending would not read the answer.
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	g.URL = server.URL
	return g
}

var credentialScope = regexp.MustCompile(`Credential=([^/,]+)/`)

// keyOf is the access key id that a request is signed with; "" for none.
func keyOf(r *http.Request) string {
	if m := credentialScope.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	key, _, _ := strings.Cut(r.URL.Query().Get("X-Amz-Credential"), "/")
	return key
}

func (g *gate) note(key string, change func(*session)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sessions[key]; s != nil {
		change(s)
	}
}

// grace is for requests that were signed in time and are on their way: a busy
// machine takes seconds for what takes milliseconds.
const grace = 3 * time.Second

// over says whether keys have expired, and counts the request.
func (g *gate) over(key string) (expired bool) {
	g.note(key, func(s *session) {
		if expired = time.Since(s.expires) > grace; expired {
			s.expired++
		} else {
			s.requests++
			s.last = time.Now()
		}
	})
	return expired
}

var (
	policyPrefix = regexp.MustCompile(`"s3:prefix":"([^"*]*)\*"`)
	issuedKey    = regexp.MustCompile(`<AccessKeyId>([^<]+)</AccessKeyId>`)
	issuedUntil  = regexp.MustCompile(`<Expiration>[^<]*</Expiration>`)
)

// issue passes AssumeRole on to MinIO, for MinIO's shortest lifetime, and answers
// with the lifetime that was asked for.
func (g *gate) issue(w http.ResponseWriter, r *http.Request) {
	if err := g.tryIssue(w, r); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
}

func (g *gate) tryIssue(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return err
	}
	seconds, err := strconv.Atoi(r.PostForm.Get("DurationSeconds"))
	if err != nil {
		return err
	}
	prefix := policyPrefix.FindStringSubmatch(r.PostForm.Get("Policy"))
	if prefix == nil {
		return fmt.Errorf("no prefix in the policy %s", r.PostForm.Get("Policy"))
	}
	r.PostForm.Set("DurationSeconds", strconv.Itoa(max(seconds, 900)))
	body := r.PostForm.Encode()
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, g.target.String()+"/", strings.NewReader(body))
	if err != nil {
		return err
	}
	out.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	hash := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(r.Context(), g.keys, out, hex.EncodeToString(hash[:]), "sts", g.region, time.Now()); err != nil {
		return err
	}
	expires := time.Now().Add(time.Duration(seconds) * time.Second).Truncate(time.Second)
	answer, err := http.DefaultClient.Do(out)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if key := issuedKey.FindSubmatch(text); key != nil {
		g.mu.Lock()
		g.sessions[string(key[1])] = &session{prefix: prefix[1], expires: expires}
		g.mu.Unlock()
		text = issuedUntil.ReplaceAll(text, []byte("<Expiration>"+expires.UTC().Format(time.RFC3339)+"</Expiration>"))
	}
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	_, err = io.Copy(w, bytes.NewReader(text))
	return err
}

// tally is what was seen of the credentials of one prefix; used and end are of
// those alone that were used since some time.
type tally struct {
	issued, used              int // sets of keys
	requests, expired, denied int
	end                       time.Time // of the last set that was used
}

func (g *gate) tally(prefix string, since time.Time) (sum tally) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if s.prefix != prefix {
			continue
		}
		sum.issued++
		if s.requests > 0 && !s.last.Before(since) {
			sum.used++
			if s.expires.After(sum.end) {
				sum.end = s.expires
			}
		}
		sum.requests += s.requests
		sum.expired += s.expired
		sum.denied += s.denied
	}
	return sum
}

// issued is how many sets of keys there are.
func (g *gate) issued() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions)
}

// The gate is what the other tests believe: it passes on what MinIO enforces,
// knows whose keys it sees, and refuses them at their end.
func TestGate(t *testing.T) {
	const lifetime = 8 * time.Second
	y := newYard(t, lifetime)
	y.grant(t, "solo", "backup@acme", accessBackup)
	credential := y.one(t, "solo")
	if left := time.Until(credential.GetExpireTime().AsTime()); left > lifetime {
		t.Fatalf("it lives another %v", left)
	}
	s3 := y.client(credential)
	must(t, put(t.Context(), s3, "solo/key"))
	if err := put(t.Context(), s3, "other/key"); !denied(err) {
		t.Errorf("another's key: %v", err)
	}
	sum := y.gate.tally("solo/", time.Time{})
	if sum.end = (time.Time{}); sum != (tally{issued: 1, used: 1, requests: 2, denied: 1}) {
		t.Errorf("it saw %+v", sum)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	polling.Until(ctx, t, "the credential's end", func() bool {
		err := put(ctx, s3, "solo/key")
		return err != nil && strings.Contains(err.Error(), "ExpiredToken")
	})
}
