package devsts

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/stokerd/stoker/server/internal/secret"
)

// TestSignatures sends a request that is right but for one thing.
func TestSignatures(t *testing.T) {
	f := start(t)
	identity := form("Action", "GetCallerIdentity")
	wrongSecret, unknownKey := f.user, f.user
	wrongSecret.SecretAccessKey = secret.New(strings.Repeat("x", 40))
	unknownKey.AccessKeyID = "AKIAUNKNOWNUNKNOWN00"
	replace := func(header, old, replacement string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set(header, strings.Replace(r.Header.Get(header), old, replacement, 1))
		}
	}
	for _, c := range []struct {
		name   string
		sign   signing
		change func(*http.Request) // after signing
		code   string
		status int
	}{
		{name: "right", status: 200},
		{name: "14 minutes old", sign: signing{at: time.Now().Add(-14 * time.Minute)}, status: 200},
		{name: "14 minutes early", sign: signing{at: time.Now().Add(14 * time.Minute)}, status: 200},
		{name: "replayed after 16 minutes", sign: signing{at: time.Now().Add(-16 * time.Minute)}, code: "SignatureDoesNotMatch", status: 403},
		{name: "16 minutes early", sign: signing{at: time.Now().Add(16 * time.Minute)}, code: "SignatureDoesNotMatch", status: 403},
		{name: "unsigned", change: func(r *http.Request) { r.Header.Del("Authorization") }, code: "MissingAuthenticationToken", status: 403},
		{name: "wrong secret", sign: signing{user: wrongSecret}, code: "SignatureDoesNotMatch", status: 403},
		{name: "unknown key", sign: signing{user: unknownKey}, code: "InvalidClientTokenId", status: 403},
		{name: "token with a long-term key", sign: signing{token: "abc"}, code: "InvalidClientTokenId", status: 403},
		{name: "another service", sign: signing{service: "s3"}, code: "SignatureDoesNotMatch", status: 403},
		{name: "another region", sign: signing{region: "us-east-1"}, code: "SignatureDoesNotMatch", status: 403},
		{name: "another terminator", change: replace("Authorization", "aws4_request", "aws5_request"), code: "SignatureDoesNotMatch", status: 403},
		{name: "short credential", change: replace("Authorization", "/aws4_request", ""), code: "IncompleteSignature", status: 400},
		{name: "another day in the scope", change: replace("Authorization", "/"+time.Now().UTC().Format("20060102")+"/", "/20200101/"), code: "SignatureDoesNotMatch", status: 403},
		{name: "signature of 63 digits", change: func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-1])
		}, code: "IncompleteSignature", status: 400},
		{name: "signature not hexadecimal", change: func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-1]+"z")
		}, code: "IncompleteSignature", status: 400},
		{name: "no signature", change: replace("Authorization", "Signature=", "Sign="), code: "IncompleteSignature", status: 400},
		{name: "another algorithm", change: replace("Authorization", "AWS4-HMAC-SHA256", "AWS4-HMAC-MD5"), code: "IncompleteSignature", status: 400},
		{name: "a part twice", change: replace("Authorization", "Signature=", "Signature=a, Signature="), code: "IncompleteSignature", status: 400},
		{name: "an unknown part", change: replace("Authorization", "Signature=", "Color=red, Signature="), code: "IncompleteSignature", status: 400},
		{name: "host unsigned", change: replace("Authorization", ";host", ""), code: "SignatureDoesNotMatch", status: 403},
		{name: "date unsigned", change: replace("Authorization", ";x-amz-date", ""), code: "SignatureDoesNotMatch", status: 403},
		{name: "headers unsorted", change: replace("Authorization", "content-type;host", "host;content-type"), code: "IncompleteSignature", status: 400},
		{name: "a signed header is missing", change: func(r *http.Request) { r.Header.Del("Content-Type") }, code: "InvalidQueryParameter", status: 400},
		{name: "a header is signed that was not", change: replace("Authorization", ";x-amz-date", ";x-amz-date;x-amz-other"), code: "SignatureDoesNotMatch", status: 403},
		{name: "an amz header is added", change: func(r *http.Request) { r.Header.Set("X-Amz-Target", "x") }, code: "SignatureDoesNotMatch", status: 403},
		{name: "a token is added", change: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, code: "SignatureDoesNotMatch", status: 403},
		{name: "a signed header is changed", change: func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		}, code: "SignatureDoesNotMatch", status: 403},
		{name: "the date is changed", change: func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().UTC().Add(-time.Minute).Format(signTimeFormat))
		}, code: "SignatureDoesNotMatch", status: 403},
		{name: "no date", change: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: "IncompleteSignature", status: 400},
		{name: "a query is added", change: func(r *http.Request) { r.URL.RawQuery = "DurationSeconds=900" }, code: "SignatureDoesNotMatch", status: 403},
		{name: "another host", change: func(r *http.Request) { r.Host = "sts.amazonaws.com" }, code: "SignatureDoesNotMatch", status: 403},
		{name: "another method", change: func(r *http.Request) { r.Method = http.MethodGet; r.URL.RawQuery = identity.Encode() }, code: "InvalidQueryParameter", status: 400},
		{name: "signed twice", change: func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, code: "IncompleteSignature", status: 400},
		{name: "another path", change: func(r *http.Request) { r.URL.Path = "/x" }, code: "InvalidAction", status: 404},
		{name: "method PUT", change: func(r *http.Request) { r.Method = http.MethodPut }, code: "InvalidAction", status: 405},
		{name: "a body of JSON", change: func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, code: "InvalidQueryParameter", status: 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := f.request(t, identity)
			if c.sign.user.AccessKeyID == "" {
				c.sign.user = f.user
			}
			sign(t, r, identity.Encode(), c.sign)
			if c.change != nil {
				c.change(r)
			}
			if a := f.send(t, r); a.status != c.status || a.Code != c.code {
				t.Errorf("got %d %s, want %d %s\n%s", a.status, a.Code, c.status, c.code, a.body)
			}
		})
	}
}

// TestTamperedBody signs one body and sends another of the same length.
func TestTamperedBody(t *testing.T) {
	f := start(t)
	honest := form("Action", "GetFederationToken", "Name", "fed1", "Policy", policy)
	tampered := form("Action", "GetFederationToken", "Name", "fed2", "Policy", policy)
	r := f.request(t, tampered)
	sign(t, r, honest.Encode(), signing{user: f.user})
	if a := f.send(t, r); a.Code != "SignatureDoesNotMatch" || len(f.Issued()) != 0 {
		t.Errorf("got %d %s, issued %d", a.status, a.Code, len(f.Issued()))
	}
}

func TestMalformedRequests(t *testing.T) {
	f := start(t)
	for name, c := range map[string]struct {
		body string
		code string
	}{
		"bad escape":        {"Action=%zz", "MalformedQueryString"},
		"semicolons":        {"Action=GetCallerIdentity;Version=2011-06-15", "MalformedQueryString"},
		"a parameter twice": {"Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", "InvalidQueryParameter"},
		"too long":          {"Action=" + strings.Repeat("a", maxBody), "RequestEntityTooLarge"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.request(t, nil)
			again, err := http.NewRequestWithContext(t.Context(), r.Method, r.URL.String(), strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			again.Header = r.Header
			sign(t, again, c.body, signing{user: f.user})
			if a := f.send(t, again); a.Code != c.code {
				t.Errorf("got %d %s, want %s", a.status, a.Code, c.code)
			}
		})
	}
}

// TestParameterInURLAndForm: which of two values counts is nobody's guess.
func TestParameterInURLAndForm(t *testing.T) {
	f := start(t)
	v := form("Action", "GetCallerIdentity")
	r := f.request(t, v)
	r.URL.RawQuery = "Action=GetCallerIdentity"
	sign(t, r, v.Encode(), signing{user: f.user})
	if a := f.send(t, r); a.Code != "InvalidQueryParameter" {
		t.Errorf("got %d %s", a.status, a.Code)
	}
}

func TestSignedGET(t *testing.T) {
	f := start(t)
	r := f.get(t, form("Action", "GetFederationToken", "Name", "fed", "Policy", policy))
	sign(t, r, "", signing{user: f.user})
	if a := f.send(t, r); a.status != http.StatusOK || len(f.Issued()) != 1 {
		t.Errorf("got %d: %s", a.status, a.body)
	}
}

func (f *fixture) get(t *testing.T, parameters url.Values) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+"/?"+parameters.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSDKPresigned: what the SDK presigns is accepted, from users and sessions.
func TestSDKPresigned(t *testing.T) {
	f := start(t)
	out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed")})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	for want, client := range map[string]*sts.Client{
		"user/broker":        f.client(f.user),
		"federated-user/fed": f.session(c.AccessKeyId, c.SecretAccessKey, c.SessionToken),
	} {
		signed, err := sts.NewPresignClient(client).PresignGetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), signed.Method, signed.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a := f.send(t, r); a.status != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("%s: got %d: %s", want, a.status, a.body)
		}
	}
}

func TestPresigned(t *testing.T) {
	f := start(t)
	presign := func(t *testing.T, at time.Time, expires string) string {
		parameters := form("Action", "GetCallerIdentity")
		if expires != "" {
			parameters.Set("X-Amz-Expires", expires)
		}
		keys, err := f.user.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), keys, f.get(t, parameters), hash(""), "sts", region, at)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for _, c := range []struct {
		name    string
		age     time.Duration
		expires string
		change  func(url.Values)
		code    string
	}{
		{name: "right", expires: "60"},
		{name: "without expiry", age: 14 * time.Minute},
		{name: "without expiry, too old", age: 16 * time.Minute, code: "SignatureDoesNotMatch"},
		{name: "an hour, 59 minutes old", age: 59 * time.Minute, expires: "3600"},
		{name: "an hour, 61 minutes old", age: 61 * time.Minute, expires: "3600", code: "SignatureDoesNotMatch"},
		{name: "over 7 days", expires: "604801", code: "IncompleteSignature"},
		{name: "no seconds", expires: "0", code: "IncompleteSignature"},
		{name: "longer expiry", expires: "60", change: func(v url.Values) { v.Set("X-Amz-Expires", "600") }, code: "SignatureDoesNotMatch"},
		{name: "another parameter", change: func(v url.Values) { v.Set("Name", "x") }, code: "SignatureDoesNotMatch"},
		{name: "no signature", change: func(v url.Values) { v.Del("X-Amz-Signature") }, code: "IncompleteSignature"},
		{name: "two signatures", change: func(v url.Values) { v.Add("X-Amz-Signature", "x") }, code: "IncompleteSignature"},
		{name: "another algorithm", change: func(v url.Values) { v.Set("X-Amz-Algorithm", "none") }, code: "IncompleteSignature"},
		{name: "broken date", change: func(v url.Values) { v.Set("X-Amz-Date", "today") }, code: "IncompleteSignature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(presign(t, time.Now().Add(-c.age), c.expires))
			if err != nil {
				t.Fatal(err)
			}
			query := u.Query()
			if c.change != nil {
				c.change(query)
			}
			if a := f.send(t, f.get(t, query)); a.Code != c.code {
				t.Errorf("got %d %q, want %q\n%s", a.status, a.Code, c.code, a.body)
			}
		})
	}
}

// TestSessionTokens: a session's key works with its own token alone.
func TestSessionTokens(t *testing.T) {
	f := start(t)
	issue := func() keyTriple {
		out, err := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed"), DurationSeconds: aws.Int32(900)})
		if err != nil {
			t.Fatal(err)
		}
		return keyTriple{*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken}
	}
	one, two := issue(), issue()
	for _, c := range []struct {
		name string
		keys keyTriple
		code string
	}{
		{"its own", one, ""},
		{"another's token", keyTriple{one.id, one.secret, two.token}, "InvalidClientTokenId"},
		{"another's secret", keyTriple{one.id, two.secret, one.token}, "SignatureDoesNotMatch"},
		{"no token", keyTriple{one.id, one.secret, ""}, "InvalidClientTokenId"},
		{"no base64", keyTriple{one.id, one.secret, "?"}, "InvalidClientTokenId"},
		{"a short token", keyTriple{one.id, one.secret, "AAAA"}, "InvalidClientTokenId"},
		{"a changed token", keyTriple{one.id, one.secret, flip(one.token)}, "InvalidClientTokenId"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.session(&c.keys.id, &c.keys.secret, &c.keys.token).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, c.name, err, c.code, http.StatusForbidden)
		})
	}
}

type keyTriple struct{ id, secret, token string }

// flip changes one character in the middle.
func flip(token string) string {
	b := []byte(token)
	if b[len(b)/2]++; b[len(b)/2] == 'Z'+1 || b[len(b)/2] == 'z'+1 || b[len(b)/2] == ':' || b[len(b)/2] == ',' {
		b[len(b)/2] = 'A'
	}
	return string(b)
}

func TestAnyRegionWhereNoneIsConfigured(t *testing.T) {
	f := start(t, func(c *Config) { c.Region = "" })
	v := form("Action", "GetCallerIdentity")
	for name, want := range map[string]int{"eu-west-9": 200, "": 403} {
		keys, err := f.user.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := f.request(t, v)
		if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, hash(v.Encode()), "sts", name, time.Now()); err != nil {
			t.Fatal(err)
		}
		if a := f.send(t, r); a.status != want {
			t.Errorf("region %q: got %d %s", name, a.status, a.Code)
		}
	}
}
