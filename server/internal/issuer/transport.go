package issuer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds the body of an answer, in bytes. A real one is under 10 KiB.
const maxAnswer = 1 << 20

var errTooLong = errors.New("the answer is longer than any that STS gives")

// boundedClient sends requests from memory, and ends the reading of an answer
// at maxAnswer, whoever sends it.
type boundedClient struct{ inner *http.Client }

// newHTTPClient wraps the account's client, or makes one.
func newHTTPClient(given *http.Client) boundedClient {
	if given == nil {
		given = &http.Client{Transport: newTransport(), CheckRedirect: neverRedirect}
	}
	return boundedClient{given}
}

// neverRedirect hands the redirect out as the answer, where it counts as
// garbled: STS does not redirect, and a signed request is nobody else's.
func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// newTransport limits connecting. The account's Timeout bounds the whole call.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second,
		// The lease queue keeps a bounded number of calls in flight to one
		// host; the default of two idle connections would reconnect for most.
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Do sends the request and bounds the answer.
func (c boundedClient) Do(r *http.Request) (*http.Response, error) {
	r, err := inMemory(r)
	if err != nil {
		return nil, err
	}
	answer, err := c.inner.Do(r) //nolint:gosec // the endpoint is the operator's
	if err != nil {
		return answer, err
	}
	answer.Body = &boundedBody{answer.Body, maxAnswer}
	return answer, nil
}

// inMemory gives the request a body of plain bytes. The SDK closes its own as
// soon as an answer begins, and if net/http looks for more of it just then, the
// WriteTo of the closed body gives io.EOF as a failure, for which net/http
// closes the connection under the answer. Bytes also let net/http use another
// connection when an idle one turns out to be closed before anything was
// written to it, which is no second call.
func inMemory(r *http.Request) (*http.Request, error) {
	if r.Body == nil {
		return r, nil
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	again := r.WithContext(r.Context())
	again.ContentLength = int64(len(content))
	again.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	again.Body = io.NopCloser(bytes.NewReader(content))
	return again, nil
}

// boundedBody fails instead of ending, so that a cut answer is never read as a
// whole one.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
