package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"golang.org/x/net/ipv4"

	"github.com/stokerd/stoker/client"
)

func listenIMDS(t testing.TB, supply Supply, grant string) (*IMDS, string) {
	t.Helper()
	m, err := ListenIMDS("127.0.0.1:0", supply, grant, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	base, found := strings.CutPrefix(m.Variables()[0], "AWS_EC2_METADATA_SERVICE_ENDPOINT=")
	if !found {
		t.Fatal(m.Variables())
	}
	return m, strings.TrimSuffix(base, "/")
}

// askIMDS makes one request on a connection of its own.
func askIMDS(t testing.TB, method, url string, headers map[string]string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
		if name == "Host" {
			request.Host = value
		}
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

func sessionToken(t testing.TB, base string) string {
	t.Helper()
	status, header, token := askIMDS(t, http.MethodPut, base+metadataTokenPath, map[string]string{metadataTokenTTL: "60"})
	if status != http.StatusOK || token == "" || header.Get(metadataTokenTTL) != "60" {
		t.Fatalf("no token: %d %q %v", status, token, header)
	}
	return token
}

func TestIMDS(t *testing.T) {
	c := credentialOf("photos")
	for _, grant := range []string{"", "photos"} {
		_, base := listenIMDS(t, newShelf(c), grant)
		with := map[string]string{metadataToken: sessionToken(t, base)}
		for _, path := range []string{metadataRolesPath, metadataRolesPath + "/"} {
			if status, _, body := askIMDS(t, http.MethodGet, base+path, with); status != http.StatusOK || body != "photos" {
				t.Errorf("grant %q, %s: %d %q", grant, path, status, body)
			}
		}
		status, header, body := askIMDS(t, http.MethodGet, base+metadataRolesPath+"/photos", with)
		var got map[string]string
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		if got["Code"] != "Success" || got["Type"] != "AWS-HMAC" || got["AccessKeyId"] != c.AccessKeyID || got["SecretAccessKey"] != c.SecretAccessKey ||
			got["Token"] != c.SessionToken || got["Expiration"] != c.Expires.Format(time.RFC3339) || got["LastUpdated"] == "" {
			t.Errorf("got %v", got)
		}
		if header.Get("Cache-Control") != "no-store" {
			t.Errorf("it may be cached: %v", header)
		}
	}
}

func TestIMDSRefuses(t *testing.T) {
	m, base := listenIMDS(t, newShelf(credentialOf("photos"), credentialOf("videos")), "photos")
	token := sessionToken(t, base)
	role := base + metadataRolesPath + "/photos"
	with := func(extra ...string) map[string]string {
		headers := map[string]string{metadataToken: token, metadataTokenTTL: "60"}
		for i := 0; i < len(extra); i += 2 {
			headers[extra[i]] = extra[i+1]
		}
		return headers
	}
	_, port, _ := net.SplitHostPort(m.site.listener.Addr().String())
	other, _ := listenIMDS(t, newShelf(), "photos")
	for name, c := range map[string]struct {
		method, url string
		headers     map[string]string
		status      int
		code        string
	}{
		"version 1, roles":       {"GET", base + metadataRolesPath + "/", nil, 401, "TOKEN_WRONG"},
		"version 1, keys":        {"GET", role, nil, 401, "TOKEN_WRONG"},
		"version 1, any path":    {"GET", base + "/latest/meta-data/", nil, 401, "TOKEN_WRONG"},
		"wrong token":            {"GET", role, with(metadataToken, token[:len(token)-2]+"AA"), 401, "TOKEN_WRONG"},
		"no base64":              {"GET", role, with(metadataToken, "%%%"), 401, "TOKEN_WRONG"},
		"short token":            {"GET", role, with(metadataToken, "AAAA"), 401, "TOKEN_WRONG"},
		"another service's":      {"GET", role, with(metadataToken, other.token(time.Hour)), 401, "TOKEN_WRONG"},
		"ended token":            {"GET", role, with(metadataToken, m.token(0)), 401, "TOKEN_WRONG"},
		"no life":                {"PUT", base + metadataTokenPath, nil, 400, "TOKEN_TTL_MALFORMED"},
		"life of 0":              {"PUT", base + metadataTokenPath, with(metadataTokenTTL, "0"), 400, "TOKEN_TTL_MALFORMED"},
		"life too long":          {"PUT", base + metadataTokenPath, with(metadataTokenTTL, "21601"), 400, "TOKEN_TTL_MALFORMED"},
		"negative life":          {"PUT", base + metadataTokenPath, with(metadataTokenTTL, "-1"), 400, "TOKEN_TTL_MALFORMED"},
		"odd life":               {"PUT", base + metadataTokenPath, with(metadataTokenTTL, "1h"), 400, "TOKEN_TTL_MALFORMED"},
		"token by GET":           {"GET", base + metadataTokenPath, with(), 405, "METHOD_NOT_ALLOWED"},
		"token by POST":          {"POST", base + metadataTokenPath, with(), 405, "METHOD_NOT_ALLOWED"},
		"token through a proxy":  {"PUT", base + metadataTokenPath, with("X-Forwarded-For", "192.0.2.1"), 403, "FORWARDED"},
		"an empty proxy":         {"PUT", base + metadataTokenPath, with("X-Forwarded-For", ""), 403, "FORWARDED"},
		"keys by PUT":            {"PUT", role, with(), 405, "METHOD_NOT_ALLOWED"},
		"keys by POST":           {"POST", role, with(), 405, "METHOD_NOT_ALLOWED"},
		"another grant":          {"GET", base + metadataRolesPath + "/videos", with(), 404, "ROLE_UNKNOWN"},
		"path that begins":       {"GET", base + metadataRolesPath + "-extended/", with(), 404, "PATH_UNKNOWN"},
		"path that goes on":      {"GET", role + "/more", with(), 404, "ROLE_UNKNOWN"},
		"user data":              {"GET", base + "/latest/user-data", with(), 404, "PATH_UNKNOWN"},
		"foreign host":           {"PUT", base + metadataTokenPath, with("Host", "attacker.example:80"), 403, "HOST_FOREIGN"},
		"rebound name":           {"GET", role, with("Host", "127.0.0.1.nip.io:"+port), 403, "HOST_FOREIGN"},
		"the real one's address": {"GET", role, with("Host", "169.254.169.254"), 403, "HOST_FOREIGN"},
		"origin":                 {"PUT", base + metadataTokenPath, with("Origin", "https://attacker.example"), 403, "ORIGIN_FOREIGN"},
		"cross-site":             {"GET", role, with("Sec-Fetch-Site", "cross-site"), 403, "ORIGIN_FOREIGN"},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, body := askIMDS(t, c.method, c.url, c.headers)
			var got Refusal
			if err := json.Unmarshal([]byte(body), &got); err != nil || status != c.status || got.Code != c.code || got.Message == "" {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.code)
			}
			if status == http.StatusMethodNotAllowed && header.Get("Allow") == "" {
				t.Error("it does not say which method")
			}
		})
	}
	if status, _, _ := askIMDS(t, http.MethodPut, base+metadataTokenPath, with("X-Huge", strings.Repeat("x", 1<<20))); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("huge headers: %d", status)
	}
	for _, life := range []int{1, 21600} {
		if status, _, _ := askIMDS(t, http.MethodPut, base+metadataTokenPath, with(metadataTokenTTL, strconv.Itoa(life))); status != http.StatusOK {
			t.Errorf("a life of %d: %d", life, status)
		}
	}
}

func TestIMDSAddress(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "169.254.169.254:80", "127.0.0.1"} {
		m, err := ListenIMDS(address, newShelf(), "photos", nil)
		if err == nil {
			t.Errorf("%s: it listens: %v", address, m.Close())
		}
	}
}

// TestIMDSTokenEnds: a token is good for as long as was asked for.
func TestIMDSTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &IMDS{supply: newShelf(credentialOf("photos")), started: time.Now()}
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodPut, metadataTokenPath, nil)
		request.Header.Set(metadataTokenTTL, "60")
		token, err := m.issue(recorder, request)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(60*time.Second - 1)
		if !m.valid(token) {
			t.Error("it has ended too early")
		}
		<-time.After(time.Nanosecond)
		if m.valid(token) {
			t.Error("it has not ended")
		}
	})
}

// TestIMDSHopLimit: no router passes on what the service sends.
func TestIMDSHopLimit(t *testing.T) {
	listener, err := listenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	near := nearListener{listener}
	defer near.Close()
	peer, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := near.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if ttl, err := ipv4.NewConn(conn).TTL(); err != nil || ttl != hopLimit {
		t.Errorf("its packets pass %d hops, %v", ttl, err)
	}
	if err := limitHops(strangersConn{conn}); err == nil {
		t.Error("a peer elsewhere is let in")
	}
}

// strangersConn is a connection that a packet filter brought from elsewhere.
type strangersConn struct{ net.Conn }

func (strangersConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 40000}
}

// TestIMDSFailures: without a credential there is never a 200, for SDKs either.
func TestIMDSFailures(t *testing.T) {
	disabled := &client.Error{Reason: client.ReasonGrantDisabled, Message: "ask the provider"}
	for name, c := range map[string]struct {
		state  error
		cause  *client.Error
		status int
		code   string
	}{
		"none yet": {client.ErrNoCredentialYet, nil, 503, "NO_CREDENTIAL_YET"},
		"expired":  {client.ErrExpired, nil, 503, "CREDENTIAL_EXPIRED"},
		"revoked":  {client.ErrRevoked, disabled, 403, "GRANT_DISABLED"},
	} {
		t.Run(name, func(t *testing.T) {
			supply := newShelf(credentialOf("photos"))
			_, base := listenIMDS(t, supply, "photos")
			supply.fail("photos", c.state, c.cause)
			status, _, body := askIMDS(t, http.MethodGet, base+metadataRolesPath+"/photos", map[string]string{metadataToken: sessionToken(t, base)})
			if status != c.status || !strings.Contains(body, c.code) || strings.Contains(body, "AccessKeyId") {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
}

// TestIMDSSDK asks with the Go SDK's own provider.
func TestIMDSSDK(t *testing.T) {
	c := credentialOf("photos")
	supply := newShelf(c)
	_, base := listenIMDS(t, supply, "")
	provider := ec2rolecreds.New(func(o *ec2rolecreds.Options) {
		o.Client = imds.New(imds.Options{Endpoint: base})
	})
	keys, err := provider.Retrieve(t.Context())
	if err != nil || keys.AccessKeyID != c.AccessKeyID || keys.SecretAccessKey != c.SecretAccessKey || keys.SessionToken != c.SessionToken {
		t.Errorf("got %v, %v", keys, err)
	}
	renewed := credentialOf("photos")
	renewed.AccessKeyID = "ASIARENEWED"
	supply.put(renewed)
	if keys, err := provider.Retrieve(t.Context()); err != nil || keys.AccessKeyID != "ASIARENEWED" {
		t.Errorf("after a renewal: %v, %v", keys, err)
	}
	supply.fail("photos", client.ErrRevoked, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if keys, err := provider.Retrieve(ctx); err == nil || keys.HasKeys() {
		t.Errorf("after a revocation: %v, %v", keys, err)
	}
}

// FuzzIMDSToken: no text but one that was issued is a token.
func FuzzIMDSToken(f *testing.F) {
	m := &IMDS{started: time.Now()}
	m.key[0] = 1
	f.Add("")
	f.Add(m.token(time.Hour)[1:])
	f.Add((&IMDS{}).token(time.Hour))
	f.Fuzz(func(t *testing.T, text string) {
		if m.valid(text) && !bytes.Equal([]byte(text), []byte(m.token(time.Hour))) {
			t.Errorf("%q is a token", text)
		}
	})
}
