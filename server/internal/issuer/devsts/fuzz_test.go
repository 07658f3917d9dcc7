package devsts

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const goodAuthorization = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-central-1/sts/aws4_request, " +
	"SignedHeaders=content-type;host;x-amz-date, Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// FuzzAuthorization: whatever is accepted has all its parts, and reads the
// same when it is written again.
func FuzzAuthorization(f *testing.F) {
	f.Add(goodAuthorization)
	f.Add(strings.ReplaceAll(goodAuthorization, ", ", ","))
	f.Add("AWS4-HMAC-SHA256 Credential=////,SignedHeaders=;,Signature=")
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request=, SignedHeaders=host, Signature==")
	f.Add("Basic dXNlcjpwYXNz")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err != nil {
			if _, ok := errors.AsType[*apiError](err); !ok {
				t.Fatalf("no API error: %v", err)
			}
			return
		}
		again, err := parseAuthorization(algorithm + " Credential=" + a.accessKeyID + "/" + a.scope.String() +
			",SignedHeaders=" + strings.Join(a.signedHeaders, ";") + ",Signature=" + a.signature)
		if err != nil || again.accessKeyID != a.accessKeyID || again.scope != a.scope || again.signature != a.signature {
			t.Fatalf("%+v became %+v (%v)", a, again, err)
		}
		if a.accessKeyID == "" || len(a.signature) != 64 {
			t.Fatalf("accepted: %+v", a)
		}
	})
}

// FuzzPresigned: likewise for the query form.
func FuzzPresigned(f *testing.F) {
	f.Add("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101%2Fr%2Fsts%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&" +
		"X-Amz-SignedHeaders=host&X-Amz-Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	f.Add("X-Amz-Algorithm=&X-Amz-Signature=")
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := url.ParseQuery(raw)
		if err != nil {
			t.Skip()
		}
		if a, err := parsePresigned(query); err == nil && (a.accessKeyID == "" || a.expires <= 0 || a.expires > maxPresigned) {
			t.Fatalf("accepted: %+v", a)
		}
	})
}

// FuzzParameters: members come in order and are read whole.
func FuzzParameters(f *testing.F) {
	f.Add("", "Action=GetFederationToken&Tags.member.1.Key=k&Tags.member.1.Value=v&Tags.member.2.Key=")
	f.Add("Action=x", "Tags=&Tags.member.=&Tags.member.99999999999999999999.Key=1")
	f.Add("a=%", ";")
	f.Fuzz(func(t *testing.T, query, body string) {
		p, err := parseParameters(query, body)
		if err != nil {
			return
		}
		members, err := p.members("Tags")
		if err != nil {
			return
		}
		if len(members) > maxMembers || len(members) > len(p.values) {
			t.Fatalf("%d members of %d parameters", len(members), len(p.values))
		}
		var v violations
		if tags, err := v.tags(p); err == nil && len(tags) != len(members) {
			t.Fatalf("%d tags of %d members", len(tags), len(members))
		}
	})
}

// FuzzPolicy: what passes the grammar is JSON with a statement.
func FuzzPolicy(f *testing.F) {
	f.Add(policy)
	f.Add(`{"Statement":[{"Effect":"Deny","NotAction":"*","NotResource":"*"}]}`)
	f.Add(`{"Statement":[]}`)
	f.Add(`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":["p/*"]}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if checkPolicy(text) != nil {
			return
		}
		var document map[string]any
		if err := json.Unmarshal([]byte(text), &document); err != nil || document["Statement"] == nil {
			t.Fatalf("accepted: %q", text)
		}
	})
}

// FuzzHandler: who does not have a secret key gets an error in XML, and
// nothing else, whatever is sent.
func FuzzHandler(f *testing.F) {
	s, err := New(Config{Users: []User{NewUser("broker")}, Roles: []Role{{Name: "backup"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/", goodAuthorization, "20260101T000000Z", "token", form("Action", "GetCallerIdentity").Encode())
	f.Add("GET", "/?Action=AssumeRole&X-Amz-Signature=x", "", "", "", "")
	f.Add("POST", "/?%zz", "AWS4-HMAC-SHA256", "\x00", "\xff", "a=%\x00")
	f.Fuzz(func(t *testing.T, method, target, authorization, date, token, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Skip()
		}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL = method, u
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("X-Amz-Security-Token", token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var a answered
		if err := xml.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code < 400 || w.Code >= 500 || a.Code == "" {
			t.Fatalf("got %d (%v): %s", w.Code, err, w.Body)
		}
	})
}
