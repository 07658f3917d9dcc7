package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// TestFaultsAreClassified meets each fault of the local STS by each method.
func TestFaultsAreClassified(t *testing.T) {
	for _, c := range []struct {
		fault  devsts.Fault
		kind   Kind
		code   string
		status int
		after  time.Duration
	}{
		{devsts.Fault{Kind: devsts.Throttle}, Throttled, "Throttling", 400, 0},
		{devsts.Fault{Kind: devsts.Throttle, RetryAfter: 7 * time.Second}, Throttled, "Throttling", 400, 7 * time.Second},
		{devsts.Fault{Kind: devsts.ServerError}, Transient, "InternalFailure", 500, 0},
		{devsts.Fault{Kind: devsts.Unavailable, RetryAfter: time.Minute}, Transient, "ServiceUnavailable", 503, time.Minute},
		{devsts.Fault{Kind: devsts.Deny}, Permanent, "AccessDenied", 403, 0},
		{devsts.Fault{Kind: devsts.Garble}, Transient, CodeGarbled, 200, 0},
		{devsts.Fault{Kind: devsts.Drop}, Transient, CodeUnreachable, 0, 0},
		{devsts.Fault{Kind: devsts.SkewExpiry, Skew: -16 * time.Minute}, Transient, CodeGarbled, 200, 0},
		{devsts.Fault{Kind: devsts.SkewExpiry, Skew: 6 * time.Minute}, Transient, CodeGarbled, 200, 0},
	} {
		for _, m := range methods {
			t.Run(string(c.fault.Kind)+"/"+string(m), func(t *testing.T) {
				f := start(t)
				f.inject(t, c.fault)
				e := issueError(t, open(t, f.account(m)))
				if e.Kind != c.kind || e.Code != c.code || e.HTTPStatus != c.status || e.RetryAfter != c.after {
					t.Errorf("got %+v", e)
				}
				if e.Account != "main" || e.Operation != m.Operation() || e.Message == "" {
					t.Errorf("got %+v", e)
				}
				if c.status >= 400 && !strings.Contains(e.Error(), "[request "+e.RequestID+"]") {
					t.Errorf("no request id: %v", e)
				}
			})
		}
	}
}

// TestSkewWithinReasonIsAccepted: clocks are never quite equal.
func TestSkewWithinReasonIsAccepted(t *testing.T) {
	f := start(t)
	s := open(t, f.account(AssumeRole))
	for _, skew := range []time.Duration{4 * time.Minute, -10 * time.Minute} {
		f.inject(t, devsts.Fault{Kind: devsts.SkewExpiry, Skew: skew, Count: 1})
		c, err := s.Issue(t.Context(), request())
		if err != nil {
			t.Errorf("%s: %v", skew, err)
			continue
		}
		if life := c.Expires.Sub(c.IssuedAt); (life - 15*time.Minute - skew).Abs() > 2*time.Second {
			t.Errorf("%s: it lasts %s", skew, life)
		}
	}
}

// TestCodesOfDevSTS: each refusal of the local STS by its own means.
func TestCodesOfDevSTS(t *testing.T) {
	f := start(t)
	other := devsts.NewUser("other")
	for _, c := range []struct {
		name   string
		change func(*Account, *Request)
		kind   Kind
		code   string
	}{
		{"policy grammar", func(_ *Account, r *Request) { r.Policy = `{"Statement":[{"Effect":"Perhaps"}]}` }, Permanent, "MalformedPolicyDocument"},
		{"packed size", func(_ *Account, r *Request) { r.Tags = incompressibleTags() }, Permanent, "PackedPolicyTooLarge"},
		{"unknown role", func(a *Account, _ *Request) { a.RoleARN = "arn:aws:iam::000000000000:role/nobody" }, Permanent, "AccessDenied"},
		{"over the role's maximum", func(a *Account, r *Request) {
			a.RoleARN, a.ExternalID = "arn:aws:iam::000000000000:role/guarded", "the-customer"
			a.MaxLifetime, r.Duration = 2*time.Hour, 2*time.Hour
		}, Permanent, "ValidationError"},
		{"unknown key", func(a *Account, _ *Request) { a.Credentials = other }, Permanent, "InvalidClientTokenId"},
		{"wrong secret", func(a *Account, _ *Request) { a.Credentials = keys(f.user.AccessKeyID, ownSecret, "") }, Permanent, "SignatureDoesNotMatch"},
		{"foreign token", func(a *Account, _ *Request) { a.Credentials = keys("ASIAX", ownSecret, ownToken) }, Permanent, "InvalidClientTokenId"},
		{"wrong region", func(a *Account, _ *Request) { a.Region = "us-west-2" }, Permanent, "SignatureDoesNotMatch"},
		{"a shorter minimum than the STS's", func(a *Account, r *Request) { a.MinLifetime, r.Duration = time.Minute, time.Minute }, Permanent, "ValidationError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, r := f.account(AssumeRole), request()
			c.change(&a, &r)
			_, err := open(t, a).Issue(t.Context(), r)
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != c.kind || e.Code != c.code {
				t.Errorf("got %v, want %s %s", err, c.kind, c.code)
			}
		})
	}
}

// incompressibleTags are within every limit but the packed one.
func incompressibleTags() []Tag {
	var tags []Tag
	for range 40 {
		u := devsts.NewUser("")
		tags = append(tags, Tag{u.AccessKeyID, u.SecretAccessKey.Reveal() + devsts.NewUser("").SecretAccessKey.Reveal()})
	}
	return tags
}

// TestExpiredBrokerKeys: the broker's own session is over; its source has new
// keys sooner or later.
func TestExpiredBrokerKeys(t *testing.T) {
	f := start(t, func(c *devsts.Config) { c.MinLifetime = 20 * time.Second })
	a := f.account(AssumeRole)
	a.MinLifetime = 20 * time.Second
	short := request()
	short.Duration = 20 * time.Second
	c, err := open(t, a).Issue(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	old := keys(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	asked := 0
	a.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if asked++; asked == 1 {
			return old.Retrieve(ctx)
		}
		return f.user.Retrieve(ctx)
	})
	s := open(t, a)
	f.ahead.Store(int64(time.Minute))
	if e := issueError(t, s); e.Kind != Transient || e.Code != "ExpiredToken" {
		t.Errorf("got %v", e)
	}
	f.ahead.Store(0)
	if _, err := s.Issue(t.Context(), request()); err != nil {
		t.Errorf("with new keys: %v", err)
	}
}

// TestSkewedClockIsTransient: the SDK learns the difference from the refusal,
// and the next call is signed right.
func TestSkewedClockIsTransient(t *testing.T) {
	f := start(t)
	f.ahead.Store(int64(20 * time.Minute))
	s := open(t, f.account(AssumeRole))
	if e := issueError(t, s); e.Kind != Transient || e.Code != "SignatureDoesNotMatch" {
		t.Errorf("got %+v", e)
	}
	// Now STS issues, and the answer's expiry does not fit this clock.
	if e := issueError(t, s); e.Kind != Transient || e.Code != CodeGarbled || !strings.Contains(e.Message, "compare the clocks") {
		t.Errorf("got %+v", e)
	}
}

// TestCodes has every code whose kind matters to the lease queue.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		code   string
		status int
		want   Kind
	}{
		{"MalformedPolicyDocument", 400, Permanent}, {"PackedPolicyTooLarge", 400, Permanent},
		{"RegionDisabledException", 403, Permanent}, {"AccessDenied", 403, Permanent},
		{"InvalidClientTokenId", 403, Permanent}, {"InvalidAccessKeyId", 403, Permanent}, {"ValidationError", 400, Permanent},
		{"InvalidParameterValue", 400, Permanent}, {"SignatureDoesNotMatch", 403, Permanent}, {"SomethingNew", 400, Permanent},
		{"Throttling", 400, Throttled}, {"ThrottlingException", 400, Throttled}, {"RequestLimitExceeded", 503, Throttled},
		{"SlowDown", 503, Throttled}, {"TooManyRequestsException", 429, Throttled}, {"SomethingNew", 429, Throttled},
		{"ExpiredToken", 403, Transient}, {"ExpiredTokenException", 400, Transient}, {"RequestExpired", 400, Transient},
		{"RequestTimeTooSkewed", 403, Transient}, {"InternalFailure", 500, Transient}, {"ServiceUnavailable", 503, Transient},
		{"InvalidParameterValue", 500, Transient}, {"AccessDenied", 502, Transient}, {"InternalError", 400, Transient},
		{"SomethingNew", 500, Transient}, {"SomethingNew", 408, Transient},
	} {
		t.Run(fmt.Sprint(c.code, c.status), func(t *testing.T) {
			e := issueError(t, open(t, answering(t, text(c.status, refusal(c.code, "a reason")))))
			if e.Kind != c.want || e.Code != c.code || e.HTTPStatus != c.status || e.Message != "a reason" ||
				e.RequestID != "c6104cbe-af31-11e0-8154-cbc7ccf896c7" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// TestMinIOStarting: its code says permanent, its text knows better.
func TestMinIOStarting(t *testing.T) {
	e := issueError(t, open(t, answering(t, text(400, refusal("InvalidParameterValue", "Server not initialized, please try again")))))
	if e.Kind != Transient || e.Code != "InvalidParameterValue" {
		t.Errorf("got %+v", e)
	}
}

// TestImplausibleAnswers are never released.
func TestImplausibleAnswers(t *testing.T) {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	good := granted("ASIAX", otherSecret, otherToken, in(15*time.Minute))
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"empty":                 {200, ""},
		"HTML":                  {200, "<!DOCTYPE html><html><body>Welcome</body></html>"},
		"a login page":          {403, "<html><body>Log in<br></body></html>"},
		"a redirect":            {302, ""},
		"an error without code": {400, "<ErrorResponse></ErrorResponse>"},
		"JSON":                  {200, `{"Credentials":{}}`},
		"another operation's":   {200, strings.ReplaceAll(good, "AssumeRole", "GetSessionToken")},
		"cut":                   {200, good[:len(good)-60]},
		"no credentials":        {200, "<AssumeRoleResponse><AssumeRoleResult></AssumeRoleResult></AssumeRoleResponse>"},
		"empty credentials":     {200, "<AssumeRoleResponse><AssumeRoleResult><Credentials></Credentials></AssumeRoleResult></AssumeRoleResponse>"},
		"no access key":         {200, granted("", otherSecret, otherToken, in(time.Minute))},
		"no secret":             {200, granted("ASIAX", "", otherToken, in(time.Minute))},
		"no token":              {200, granted("ASIAX", otherSecret, "", in(time.Minute))},
		"a line break":          {200, granted("ASIAX", otherSecret, "a&#10;b", in(time.Minute))},
		"a space":               {200, granted("ASIA X", otherSecret, otherToken, in(time.Minute))},
		"not ASCII":             {200, granted("ASIAX", otherSecret+"ä", otherToken, in(time.Minute))},
		"no expiry":             {200, strings.NewReplacer("<Expiration>", "<x>", "</Expiration>", "</x>").Replace(good)},
		"expiry no time":        {200, strings.Replace(good, "<Expiration>", "<Expiration>tomorrow, ", 1)},
		"already over":          {200, granted("ASIAX", otherSecret, otherToken, in(-time.Second))},
		"longer than asked for": {200, granted("ASIAX", otherSecret, otherToken, in(21*time.Minute))},
		"the year 9999":         {200, granted("ASIAX", otherSecret, otherToken, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))},
		"packed size negative":  {200, strings.Replace(good, "</Credentials>", "</Credentials><PackedPolicySize>-1</PackedPolicySize>", 1)},
		"endless":               {200, "<AssumeRoleResponse>" + strings.Repeat(" ", maxAnswer)},
	} {
		t.Run(name, func(t *testing.T) {
			e := issueError(t, open(t, answering(t, text(c.status, c.body))))
			if e.Kind != Transient || e.Code != CodeGarbled || e.HTTPStatus != c.status {
				t.Errorf("got %+v", e)
			}
			hasNoSecret(t, e)
		})
	}
}

// hasNoSecret searches everything an error can be made to say.
func hasNoSecret(t *testing.T, e *Error) {
	t.Helper()
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%v %+v %#v %s %q", e, e, e, e.Message, e.Code) + string(encoded)
	for cause := error(e); cause != nil; cause = errors.Unwrap(cause) {
		said += cause.Error()
	}
	for _, canary := range []string{ownSecret, otherSecret, ownToken[:40], otherToken[:40], "canary"} {
		if strings.Contains(said, canary) {
			t.Errorf("the error shows %s: %s", canary, said)
		}
	}
}

// TestErrorsNeverShowSecrets: an STS that repeats what it was sent, and what it
// was about to answer, everywhere that an error's text could come from.
func TestErrorsNeverShowSecrets(t *testing.T) {
	canonical := "The request signature we calculated does not match the signature you provided. The Canonical String for this request should have been\n" +
		"'POST\n/\n\nx-amz-security-token:" + ownToken[:60] + "\n" + ownToken[60:] + "\n'"
	all := strings.Join([]string{ownSecret, otherSecret, ownToken, otherToken}, " ")
	for name, h := range map[string]http.HandlerFunc{
		"message":          text(400, refusal("ValidationError", "Value "+all+" is bad")),
		"canonical string": text(403, refusal("SignatureDoesNotMatch", canonical)),
		"code":             text(400, refusal(ownSecret+otherSecret, "x")),
		"request id": func(w http.ResponseWriter, r *http.Request) {
			text(400, strings.Replace(refusal("ValidationError", "x"), "c6104cbe", otherToken, 1))(w, r)
		},
		"status 500":       text(500, refusal("InternalFailure", all)),
		"broken XML":       text(200, granted("ASIAX", otherSecret, otherToken, time.Now())[:200+len(otherToken)]),
		"broken error":     text(400, "<ErrorResponse><"+otherSecret+"></x>"),
		"element names":    text(200, "<AssumeRoleResponse><AssumeRoleResult><canaryNewSecret></other></AssumeRoleResult></AssumeRoleResponse>"),
		"expiry":           text(200, strings.Replace(granted("ASIAX", otherSecret, otherToken, time.Now()), "<Expiration>", "<Expiration>"+otherSecret, 1)),
		"a bad secret key": text(200, granted("ASIAX", otherSecret+"&#7;", otherToken, time.Now().Add(time.Minute))),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+otherSecret, http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := answering(t, h)
			a.Credentials = keys("ASIAEXAMPLE", ownSecret, ownToken)
			hasNoSecret(t, issueError(t, open(t, a)))
		})
	}
}

// TestKeySourceErrorsNeverShowSecrets: a credential process that prints keys
// in a form that the SDK cannot read.
func TestKeySourceErrorsNeverShowSecrets(t *testing.T) {
	dir := clearAWSEnvironment(t)
	script := filepath.Join(dir, "keys.sh")
	writeFile(t, script, "#!/bin/sh\necho 'secret="+otherSecret+"'\n")
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "config"), "[profile broker]\ncredential_process = "+script+"\n")
	s := open(t, valid(func(a *Account) { a.Profile = "broker" }))
	e := issueError(t, s)
	if e.Kind != Transient || e.Code != CodeNoKeys || !strings.Contains(e.Message, "credential_process") {
		t.Errorf("got %+v", e)
	}
	hasNoSecret(t, e)
	findings, err := s.Check(t.Context())
	if err != nil || strings.Contains(fmt.Sprint(findings), "canary") {
		t.Errorf("got %v, %v", findings, err)
	}
}

func TestNoBrokerKeys(t *testing.T) {
	clearAWSEnvironment(t)
	s := open(t, valid())
	if e := issueError(t, s); e.Kind != Transient || e.Code != CodeNoKeys {
		t.Errorf("got %+v", e)
	}
	empty := open(t, valid(func(a *Account) { a.Credentials = keys("", "", "") }))
	if e := issueError(t, empty); e.Code != CodeNoKeys {
		t.Errorf("got %+v", e)
	}
}

func TestConnectionRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := Account{Name: "main", Endpoint: "http://" + listener.Addr().String(), Method: AssumeRole, Credentials: keys("AKIAX", ownSecret, "")}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if e := issueError(t, open(t, a)); e.Kind != Transient || e.Code != CodeUnreachable || !strings.Contains(e.Message, "connection refused") {
		t.Errorf("got %+v", e)
	}
}

// TestUntrustedTLS: an endpoint with a certificate of nobody's.
func TestUntrustedTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(text(200, ""))
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.StartTLS()
	defer server.Close()
	a := Account{Name: "main", Endpoint: server.URL, Method: AssumeRole, Credentials: keys("AKIAX", ownSecret, "")}
	if e := issueError(t, open(t, a)); e.Kind != Transient || e.Code != CodeUnreachable || !strings.Contains(e.Message, "certificate") {
		t.Errorf("got %+v", e)
	}
}

// TestHangingSTS: the account's timeout ends the call, over real HTTP.
func TestHangingSTS(t *testing.T) {
	for _, m := range methods {
		f := start(t)
		f.inject(t, devsts.Fault{Kind: devsts.Hang})
		a := f.account(m)
		a.Timeout = 50 * time.Millisecond
		e := issueError(t, open(t, a))
		if e.Kind != Transient || e.Code != CodeTimeout || !errors.Is(e, context.DeadlineExceeded) || !strings.Contains(e.Message, "50ms") {
			t.Errorf("got %+v", e)
		}
	}
}

// TestHangingInTheBody: headers came, the rest never does.
func TestHangingInTheBody(t *testing.T) {
	a := answering(t, func(w http.ResponseWriter, r *http.Request) {
		// An answer ahead of the request's end would break the connection.
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "<AssumeRoleResponse><AssumeRoleResult>")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	a.Timeout = 50 * time.Millisecond
	if e := issueError(t, open(t, a)); e.Kind != Transient || e.Code != CodeTimeout {
		t.Errorf("got %+v", e)
	}
}

// TestBrokenOffAnswer: the connection ends in the middle.
func TestBrokenOffAnswer(t *testing.T) {
	a := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "10000")
		_, _ = io.WriteString(w, "<AssumeRoleResponse><AssumeRoleResult>")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if e := issueError(t, open(t, a)); e.Kind != Transient || e.Code != CodeUnreachable || e.HTTPStatus != 200 {
		t.Errorf("got %+v", e)
	}
}

// silent is a transport that never answers. It needs no network, so that a
// test can let time pass.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func silentAccount() Account {
	return Account{
		Name: "main", Endpoint: "http://127.0.0.1:1", Method: AssumeRole,
		Credentials: keys("AKIAX", ownSecret, ""), HTTPClient: &http.Client{Transport: silent{}},
	}
}

func TestDefaultTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		e := issueError(t, open(t, silentAccount()))
		if e.Code != CodeTimeout || time.Since(began) != DefaultTimeout {
			t.Errorf("after %s: %+v", time.Since(began), e)
		}
	})
}

func TestCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := open(t, silentAccount()).Issue(ctx, request())
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Transient || e.Code != CodeTimeout || !strings.Contains(e.Message, "caller") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCanceledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := open(t, silentAccount()).Issue(ctx, request())
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Transient || e.Code != CodeCanceled || !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestSlowKeySource: finding the broker's keys is within the same limit.
func TestSlowKeySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := silentAccount()
		release := make(chan struct{})
		a.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			<-release
			return aws.Credentials{}, errors.New("too late")
		})
		began := time.Now()
		e := issueError(t, open(t, a))
		if e.Code != CodeTimeout || e.Kind != Transient || time.Since(began) != DefaultTimeout {
			t.Errorf("after %s: %+v", time.Since(began), e)
		}
		close(release)
	})
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "0": 0, "-1": 0, "x": 0, "1.5": 0,
		"301": 5 * time.Minute, "999999999": 5 * time.Minute, "Fri, 31 Dec 1999 23:59:59 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {header}}); got != want {
			t.Errorf("%q: %s", header, got)
		}
	}
}

func TestScrubbedLine(t *testing.T) {
	for text, want := range map[string]string{
		"User: arn:aws:sts::123456789012:assumed-role/stoker-broker/session-of-a-very-long-name-1 is not authorized": "User: arn:aws:sts::123456789012:assumed-role/stoker-broker/session-of-a-very-long-name-1 is not authorized",
		"key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1 leaked":                                                       "key REDACTED leaked",
		"a\nforged line\x1b[31m \xff":                         "a forged line?[31m ?",
		"bad. The String-to-Sign should have been\n'AWS4...'": "bad.",
	} {
		if got := (scrubber{}).line(text, maxMessage); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := (scrubber{}).line(strings.Repeat("word ", 1000), 20); len([]rune(got)) != 20 {
		t.Errorf("got %q", got)
	}
}

// FuzzScrub: the broker's own keys never get through, whatever is around them.
func FuzzScrub(f *testing.F) {
	f.Add("before ", " after", "between")
	f.Add("canary", "=", "%2F")
	f.Add("The Canonical String ", "\n", "\x00")
	hide := hiding(aws.Credentials{SecretAccessKey: ownSecret, SessionToken: ownToken})
	f.Fuzz(func(t *testing.T, before, after, between string) {
		line := hide.line(before+ownSecret+between+ownToken+after, maxMessage)
		if strings.Contains(line, ownSecret) || strings.Contains(line, ownToken) || strings.ContainsAny(line, "\n\r\x1b") || len([]rune(line)) > maxMessage {
			t.Fatalf("%q", line)
		}
	})
}
