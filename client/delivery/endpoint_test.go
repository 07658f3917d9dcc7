package delivery

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"

	"github.com/stokerd/stoker/client"
)

func listen(t testing.TB, supply Supply) *Endpoint {
	t.Helper()
	e, err := Listen("127.0.0.1:0", supply, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// ask makes one request on a connection of its own.
func ask(t testing.TB, method, url string, headers map[string]string) (int, http.Header, map[string]string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		if name == "Host" {
			request.Host = value
			continue
		}
		request.Header.Set(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(map[string]string)
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	}
	return response.StatusCode, response.Header, answer
}

func TestEndpointAnswers(t *testing.T) {
	c := credentialOf("photos")
	e := listen(t, newShelf(c))
	token := e.Admit("tool")
	for name, headers := range map[string]map[string]string{
		"the token as it is": {"Authorization": token},
		"as a bearer":        {"Authorization": "Bearer " + token},
		"as localhost":       {"Authorization": token, "Host": net.JoinHostPort("localhost", portOf(e))},
		"typed by a person":  {"Authorization": token, "Sec-Fetch-Site": "none"},
	} {
		for _, url := range []string{e.URL("photos"), e.URL(""), e.URL("photos") + "?min_ttl=900", e.URL("") + "/?min_ttl=15m"} {
			status, header, answer := ask(t, http.MethodGet, url, headers)
			want := map[string]string{
				"AccessKeyId": c.AccessKeyID, "SecretAccessKey": c.SecretAccessKey, "Token": c.SessionToken,
				"Expiration": c.Expires.Format("2006-01-02T15:04:05Z"),
			}
			if status != http.StatusOK || !maps.Equal(answer, want) {
				t.Errorf("%s, %s: %d %v", name, url, status, answer)
			}
			if header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: it may be cached: %v", name, header)
			}
		}
	}
}

func TestEndpointRefuses(t *testing.T) {
	supply := newShelf(credentialOf("photos"), credentialOf("videos"))
	e := listen(t, supply)
	token := e.Admit("tool")
	one := e.Admit("narrow", "photos")
	e.Admit("replaced")
	old := e.Admit("dismissed")
	e.Dismiss("dismissed")
	with := func(extra ...string) map[string]string {
		headers := map[string]string{"Authorization": token}
		for i := 0; i < len(extra); i += 2 {
			headers[extra[i]] = extra[i+1]
		}
		return headers
	}
	base := "http://" + e.site.listener.Addr().String()
	for name, c := range map[string]struct {
		method, url string
		headers     map[string]string
		status      int
		code        string
	}{
		"no token":          {"GET", e.URL("photos"), nil, 401, "TOKEN_MISSING"},
		"empty token":       {"GET", e.URL("photos"), with("Authorization", ""), 401, "TOKEN_MISSING"},
		"wrong token":       {"GET", e.URL("photos"), with("Authorization", token[1:]+"A"), 401, "TOKEN_WRONG"},
		"token cut short":   {"GET", e.URL("photos"), with("Authorization", token[:20]), 401, "TOKEN_WRONG"},
		"dismissed token":   {"GET", e.URL("photos"), with("Authorization", old), 401, "TOKEN_WRONG"},
		"stranger's path":   {"GET", base + "/", nil, 401, "TOKEN_MISSING"},
		"wrong path":        {"GET", base + "/latest/meta-data/", with(), 404, "PATH_UNKNOWN"},
		"root":              {"GET", base + "/", with(), 404, "PATH_UNKNOWN"},
		"path that begins":  {"GET", base + "/v1/credentialsphotos", with(), 404, "PATH_UNKNOWN"},
		"path that goes on": {"GET", e.URL("photos") + "/more", with(), 404, "PATH_UNKNOWN"},
		"unknown grant":     {"GET", e.URL("nothing"), with(), 404, "GRANT_UNKNOWN"},
		"which grant":       {"GET", e.URL(""), with(), 400, "GRANT_AMBIGUOUS"},
		"POST":              {"POST", e.URL("photos"), with(), 405, "METHOD_NOT_ALLOWED"},
		"PUT":               {"PUT", e.URL("photos"), with(), 405, "METHOD_NOT_ALLOWED"},
		"OPTIONS":           {"OPTIONS", e.URL("photos"), with(), 405, "METHOD_NOT_ALLOWED"},
		"foreign host":      {"GET", e.URL("photos"), with("Host", "attacker.example:80"), 403, "HOST_FOREIGN"},
		"rebound name":      {"GET", e.URL("photos"), with("Host", "127.0.0.1.nip.io:"+portOf(e)), 403, "HOST_FOREIGN"},
		"host without port": {"GET", e.URL("photos"), with("Host", "127.0.0.1"), 403, "HOST_FOREIGN"},
		"another port":      {"GET", e.URL("photos"), with("Host", "127.0.0.1:1"), 403, "HOST_FOREIGN"},
		"another address":   {"GET", e.URL("photos"), with("Host", "192.0.2.1:"+portOf(e)), 403, "HOST_FOREIGN"},
		"origin":            {"GET", e.URL("photos"), with("Origin", "https://attacker.example"), 403, "ORIGIN_FOREIGN"},
		"null origin":       {"GET", e.URL("photos"), with("Origin", "null"), 403, "ORIGIN_FOREIGN"},
		"cross-site":        {"GET", e.URL("photos"), with("Sec-Fetch-Site", "cross-site"), 403, "ORIGIN_FOREIGN"},
		"not admitted":      {"GET", e.URL("videos"), with("Authorization", one), 403, "GRANT_NOT_ADMITTED"},
		"long life":         {"GET", e.URL("photos") + "?min_ttl=2h", with(), 503, "TTL_TOO_SHORT"},
		"odd life":          {"GET", e.URL("photos") + "?min_ttl=soon", with(), 400, "MIN_TTL_MALFORMED"},
		"negative life":     {"GET", e.URL("photos") + "?min_ttl=-5s", with(), 400, "MIN_TTL_MALFORMED"},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, answer := ask(t, c.method, c.url, c.headers)
			if status != c.status || answer["code"] != c.code || answer["message"] == "" {
				t.Errorf("got %d %v, want %d %s", status, answer, c.status, c.code)
			}
			if len(answer) != 2 {
				t.Errorf("it says too much: %v", answer)
			}
		})
	}
	if status, _, answer := ask(t, http.MethodGet, e.URL(""), map[string]string{"Authorization": one}); status != 200 || answer["AccessKeyId"] != "ASIAPHOTOS" {
		t.Errorf("the only admitted grant: %d %v", status, answer)
	}
}

// TestEndpointFailures: without a credential there is never a 200.
func TestEndpointFailures(t *testing.T) {
	throttled := &client.Error{Reason: client.ReasonSTSThrottled, Message: "slow down", Transient: true}
	disabled := &client.Error{Reason: client.ReasonGrantDisabled, Message: "ask the provider"}
	away := &client.Error{Message: "connection refused", Transient: true}
	for name, c := range map[string]struct {
		state  error
		cause  *client.Error
		status int
		code   string
		again  string
	}{
		"none yet":              {client.ErrNoCredentialYet, nil, 503, "NO_CREDENTIAL_YET", "5"},
		"none yet, refused":     {client.ErrNoCredentialYet, disabled, 403, "GRANT_DISABLED", ""},
		"expired":               {client.ErrExpired, away, 503, "CREDENTIAL_EXPIRED", "5"},
		"expired, throttled":    {client.ErrExpired, throttled, 503, "STS_THROTTLED", "5"},
		"expired, disabled":     {client.ErrExpired, disabled, 403, "GRANT_DISABLED", ""},
		"revoked":               {client.ErrRevoked, disabled, 403, "GRANT_DISABLED", ""},
		"revoked without cause": {client.ErrRevoked, nil, 403, "CREDENTIAL_REVOKED", ""},
		"closed":                {client.ErrClosed, nil, 503, "AGENT_STOPPING", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			supply := newShelf(credentialOf("photos"))
			e := listen(t, supply)
			token := e.Admit("tool")
			supply.fail("photos", c.state, c.cause)
			status, header, answer := ask(t, http.MethodGet, e.URL("photos"), map[string]string{"Authorization": token})
			if status != c.status || answer["code"] != c.code || answer["AccessKeyId"] != "" || header.Get("Retry-After") != c.again {
				t.Errorf("got %d %v %v", status, answer, header)
			}
		})
	}
	if f := explain(errTest); f.status != 500 || f.Code != "INTERNAL" {
		t.Errorf("an error of no known kind: %v", f)
	}
}

func TestEndpointHugeHeaders(t *testing.T) {
	e := listen(t, newShelf(credentialOf("photos")))
	token := e.Admit("tool")
	status, _, _ := ask(t, http.MethodGet, e.URL("photos"), map[string]string{"Authorization": token, "X-Huge": strings.Repeat("x", 1<<20)})
	if status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", status)
	}
}

// TestEndpointCrowd opens ten thousand connections that say nothing. The endpoint
// keeps few of them, and answers a tool all the same.
func TestEndpointCrowd(t *testing.T) {
	e := listen(t, newShelf(credentialOf("photos")))
	token := e.Admit("tool")
	var silent []net.Conn
	defer func() {
		for _, conn := range silent {
			_ = conn.Close()
		}
	}()
	for i := range 10_000 {
		conn, err := net.Dial("tcp", e.site.listener.Addr().String())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		silent = append(silent, conn)
		if i%2000 == 0 {
			if status, _, answer := ask(t, http.MethodGet, e.URL("photos"), map[string]string{"Authorization": token}); status != http.StatusOK {
				t.Fatalf("after %d connections: %d %v", i, status, answer)
			}
		}
	}
	if status, _, answer := ask(t, http.MethodGet, e.URL("photos"), map[string]string{"Authorization": token}); status != http.StatusOK {
		t.Errorf("got %d %v", status, answer)
	}
	if got := e.site.crowd.size(); got > mostConnections {
		t.Errorf("%d connections are open", got)
	}
}

func TestEndpointAddress(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:80", "example.com:80", "127.0.0.1"} {
		e, err := Listen(address, newShelf(), nil)
		if err == nil {
			t.Errorf("%s: it listens: %v", address, e.Close())
		}
	}
	if err := listen(t, newShelf()).AdmitToken("tool", "short"); err == nil {
		t.Error("a short token is taken")
	}
}

// TestEndpointSDK asks with the Go SDK's own client.
func TestEndpointSDK(t *testing.T) {
	c := credentialOf("photos")
	supply := newShelf(c)
	e := listen(t, supply)
	provider := endpointcreds.New(e.URL("photos"), func(o *endpointcreds.Options) { o.AuthorizationToken = e.Admit("sdk") })
	keys, err := provider.Retrieve(t.Context())
	if err != nil || keys.AccessKeyID != c.AccessKeyID || keys.SecretAccessKey != c.SecretAccessKey || keys.SessionToken != c.SessionToken || !keys.Expires.Equal(c.Expires) || !keys.CanExpire {
		t.Errorf("got %v, %v", keys, err)
	}
	supply.fail("photos", client.ErrRevoked, &client.Error{Reason: client.ReasonGrantDisabled, Message: "ask the provider"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if keys, err := provider.Retrieve(ctx); err == nil || !strings.Contains(err.Error(), "GRANT_DISABLED") {
		t.Errorf("after a revocation: %v, %v", keys, err)
	}
}

// BenchmarkEndpoint is one answer as a tool sees it, over a connection that it
// keeps.
func BenchmarkEndpoint(b *testing.B) {
	e := listen(b, newShelf(credentialOf("photos")))
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, e.URL("photos"), nil)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Authorization", e.Admit("tool"))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		response, err := transport.RoundTrip(request)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			b.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkAnswer is the endpoint's own part of that.
func BenchmarkAnswer(b *testing.B) {
	e := listen(b, newShelf(credentialOf("photos")))
	request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, e.URL("photos"), nil)
	request.Header.Set("Authorization", e.Admit("tool"))
	for b.Loop() {
		recorder := httptest.NewRecorder()
		e.ServeHTTP(recorder, request)
		if recorder.Code != http.StatusOK {
			b.Fatal(recorder.Body)
		}
	}
}

func portOf(e *Endpoint) string {
	_, port, _ := net.SplitHostPort(e.site.listener.Addr().String())
	return port
}
