package devsts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region  = "eu-central-1"
	roleARN = "arn:aws:iam::000000000000:role/backup"
	policy  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/p/*"}]}`
)

// fixture is a running STS with a user, a root user and some roles.
type fixture struct {
	*Server
	user, root User
	http       *http.Client
	// ahead moves the service's clock.
	ahead atomic.Int64
}

func start(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{user: NewUser("broker"), root: NewUser("")}
	f.root.Root = true
	c := Config{
		Region: region,
		Users:  []User{f.user, f.root},
		Roles: []Role{
			{Name: "backup"},
			{Name: "long", MaxLifetime: 12 * time.Hour},
			{Name: "guarded", ExternalID: "the-customer"},
			{Name: "private", Trust: []string{"arn:aws:iam::000000000000:user/somebody"}},
			{Name: "next", Trust: []string{roleARN}, MaxLifetime: 12 * time.Hour},
		},
		Clock:  func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, ch := range change {
		ch(&c)
	}
	var err error
	if f.Server, err = Start(c); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	f.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// client is the SDK's client with these keys.
func (f *fixture) client(keys aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{
		Region: region, BaseEndpoint: aws.String(f.URL()), Credentials: keys,
		Retryer: aws.NopRetryer{}, HTTPClient: f.http,
	})
}

// session gives an SDK client with issued credentials.
func (f *fixture) session(id, secretKey, token *string) *sts.Client {
	return f.client(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: *id, SecretAccessKey: *secretKey, SessionToken: *token}, nil
	}))
}

// request makes an unsigned call.
func (f *fixture) request(t *testing.T, parameters url.Values) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL()+"/", strings.NewReader(parameters.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// signing says how a request is signed.
type signing struct {
	user    User
	at      time.Time
	service string
	region  string
	token   string
}

// sign signs the request over the given body.
func sign(t *testing.T, r *http.Request, body string, s signing) {
	t.Helper()
	if s.at.IsZero() {
		s.at = time.Now()
	}
	if s.service == "" {
		s.service = "sts"
	}
	if s.region == "" {
		s.region = region
	}
	keys, err := s.user.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys.SessionToken = s.token
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, hash(body), s.service, s.region, s.at); err != nil {
		t.Fatal(err)
	}
}

func hash(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// answered is an answer as it went over the wire.
type answered struct {
	status int
	header http.Header
	body   string
	Type   string `xml:"Error>Type"`
	Code   string `xml:"Error>Code"`
	Text   string `xml:"Error>Message"`
	ID     string `xml:"RequestId"`
}

func (f *fixture) send(t *testing.T, r *http.Request) answered {
	t.Helper()
	response, err := f.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answered{status: response.StatusCode, header: response.Header, body: string(body)}
	if response.StatusCode != http.StatusOK {
		if err := xml.Unmarshal(body, &a); err != nil {
			t.Fatalf("the error is no XML: %v\n%s", err, body)
		}
	}
	return a
}

// call sends the parameters, signed by the user.
func (f *fixture) call(t *testing.T, user User, parameters url.Values) answered {
	t.Helper()
	r := f.request(t, parameters)
	sign(t, r, parameters.Encode(), signing{user: user})
	return f.send(t, r)
}

// form makes parameters of pairs, with the version of STS.
func form(pairs ...string) url.Values {
	v := url.Values{"Version": {"2011-06-15"}}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}
