package issuer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region  = "eu-central-1"
	roleARN = "arn:aws:iam::000000000000:role/backup"
	policy  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/p/*"}]}`
)

// fixture is a local STS with a user that may do everything.
type fixture struct {
	*devsts.Server
	user, root devsts.User
	ahead      atomic.Int64 // of the STS's clock
}

func start(t *testing.T, change ...func(*devsts.Config)) *fixture {
	t.Helper()
	f := &fixture{user: devsts.NewUser("broker"), root: devsts.NewUser("")}
	f.root.Root = true
	c := devsts.Config{
		Region: region,
		Users:  []devsts.User{f.user, f.root},
		Roles:  []devsts.Role{{Name: "backup", MaxLifetime: 12 * time.Hour}, {Name: "guarded", ExternalID: "the-customer"}},
		Clock:  func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, ch := range change {
		ch(&c)
	}
	var err error
	if f.Server, err = devsts.Start(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// account reaches the fixture's STS by the method.
func (f *fixture) account(m Method) Account {
	a := Account{Name: "main", Region: region, Endpoint: f.URL(), Method: m, Credentials: f.user}
	if m == AssumeRole {
		a.RoleARN = roleARN
	}
	return a
}

// open makes the issuer and closes it with the test.
func open(t *testing.T, a Account) *STS {
	t.Helper()
	s, err := New(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func request() Request {
	return Request{
		SessionName: "acme.0198c2d07b1e", Policy: policy, Duration: 15 * time.Minute,
		Tags: []Tag{{"tenant", "acme"}, {"agent", "0198c2d0-7b1e-7cc4-9d5e-51d6f4a3c1aa"}},
	}
}

func (f *fixture) inject(t *testing.T, fault devsts.Fault) {
	t.Helper()
	if err := f.Inject(fault); err != nil {
		t.Fatal(err)
	}
}

// issueError makes a call that must fail.
func issueError(t *testing.T, s *STS) *Error {
	t.Helper()
	c, err := s.Issue(t.Context(), request())
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if c.AccessKeyID != "" || !c.SecretAccessKey.IsZero() || !c.SessionToken.IsZero() {
		t.Errorf("a credential comes with the error: %+v", c)
	}
	return e
}

// answering is an STS that answers everything in one way.
func answering(t *testing.T, h http.HandlerFunc) Account {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return Account{
		Name: "main", Endpoint: server.URL, Method: AssumeRole,
		Credentials: keys("AKIAEXAMPLE", ownSecret, ""),
	}
}

// text answers with a status and a body.
func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// An answer ahead of the request's end would break the connection.
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// refusal is an error answer of STS.
func refusal(code, message string) string {
	return `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>` + code +
		`</Code><Message>` + message + `</Message></Error><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ErrorResponse>`
}

// granted is a good answer to AssumeRole, for changing.
func granted(id, secretKey, token string, expires time.Time) string {
	return `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>` +
		`<AccessKeyId>` + id + `</AccessKeyId><SecretAccessKey>` + secretKey + `</SecretAccessKey><SessionToken>` + token + `</SessionToken>` +
		`<Expiration>` + expires.UTC().Format(time.RFC3339) + `</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
}

// Secrets that must not show up in any error.
const (
	ownSecret   = "canaryOwnSecret/0123456789+abcdefghijklm"
	otherSecret = "canaryNewSecret/9876543210+zyxwvutsrqpon"
)

var (
	ownToken   = "canaryOwnToken" + strings.Repeat("A1b2/+", 50)
	otherToken = "canaryNewToken" + strings.Repeat("Z9y8/+", 50)
)

// keys are the broker's own.
func keys(id, secretKey, token string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secretKey, SessionToken: token}, nil
	})
}
