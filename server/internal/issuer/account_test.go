package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

func valid(change ...func(*Account)) Account {
	a := Account{Name: "main", Region: region, Method: AssumeRole, RoleARN: "arn:aws:iam::123456789012:role/backup"}
	for _, ch := range change {
		ch(&a)
	}
	return a
}

func federation(a *Account) { a.Method, a.RoleARN = FederationToken, "" }

func endpoint(url string) func(*Account) {
	return func(a *Account) { a.Endpoint = url }
}

func TestValidate(t *testing.T) {
	set := func(change func(*Account)) func(*Account) { return change }
	for _, c := range []struct {
		name   string
		change []func(*Account)
		want   string // part of the error; "" means valid
	}{
		{"AssumeRole", nil, ""},
		{"FederationToken", []func(*Account){federation}, ""},
		{"GovCloud role", []func(*Account){set(func(a *Account) { a.RoleARN = "arn:aws-us-gov:iam::123456789012:role/path/backup" })}, ""},
		{"external id", []func(*Account){set(func(a *Account) { a.ExternalID = "a:b/c" })}, ""},
		{"AssumeRole, 12 hours", []func(*Account){set(func(a *Account) { a.MaxLifetime = 12 * time.Hour })}, ""},
		{"FederationToken, 36 hours", []func(*Account){federation, set(func(a *Account) { a.MaxLifetime = 36 * time.Hour })}, ""},
		{"endpoint without region or role", []func(*Account){endpoint("http://127.0.0.1:9000"), set(func(a *Account) { a.Region, a.RoleARN = "", "" })}, ""},
		{"endpoint, 20 seconds", []func(*Account){endpoint("http://127.0.0.1:9000"), set(func(a *Account) { a.MinLifetime, a.MaxLifetime = 20*time.Second, 20*time.Second })}, ""},
		{"endpoint with a role of its own form", []func(*Account){endpoint("https://sts.example.org"), set(func(a *Account) { a.RoleARN = "urn:rgw:role:::backup" })}, ""},

		{"no name", []func(*Account){set(func(a *Account) { a.Name = "" })}, "name: is empty"},
		{"no region", []func(*Account){set(func(a *Account) { a.Region = "" })}, "region:"},
		{"region with a dot", []func(*Account){set(func(a *Account) { a.Region = "eu.example.org/" })}, "region:"},
		{"no method", []func(*Account){set(func(a *Account) { a.Method = "" })}, "method:"},
		{"unknown method", []func(*Account){set(func(a *Account) { a.Method = "AssumeRole" })}, "set assume_role or federation_token"},
		{"endpoint without scheme", []func(*Account){endpoint("sts.example.org")}, "endpoint: must start with https://"},
		{"endpoint of another scheme", []func(*Account){endpoint("ftp://sts.example.org")}, "endpoint: must start with https://"},
		{"endpoint without host", []func(*Account){endpoint("https://:443")}, "endpoint: has no host"},
		{"endpoint with a query", []func(*Account){endpoint("https://sts.example.org?x=1")}, "endpoint: must not contain ?"},
		{"endpoint with a fragment", []func(*Account){endpoint("https://sts.example.org#x")}, "endpoint: must not contain ?"},
		{"endpoint with a password", []func(*Account){endpoint("https://user:canary@sts.example.org")}, "endpoint: must not contain a user"},
		{"endpoint that is no URL", []func(*Account){endpoint("https://user:canary@sts.example.org:x")}, "endpoint: is not a URL"},
		{"no role", []func(*Account){set(func(a *Account) { a.RoleARN = "" })}, "role ARN: is empty"},
		{"a user as role", []func(*Account){set(func(a *Account) { a.RoleARN = "arn:aws:iam::123456789012:user/backup" })}, "role ARN: \"arn"},
		{"no ARN as role", []func(*Account){set(func(a *Account) { a.RoleARN = "backup-role-of-the-provider" })}, "role ARN: \"backup"},
		{"short role at an endpoint", []func(*Account){endpoint("https://sts.example.org"), set(func(a *Account) { a.RoleARN = "backup" })}, "role ARN: has 6 characters"},
		{"short external id", []func(*Account){set(func(a *Account) { a.ExternalID = "x" })}, "external id:"},
		{"odd external id", []func(*Account){set(func(a *Account) { a.ExternalID = "a b" })}, "external id:"},
		{"role with FederationToken", []func(*Account){set(func(a *Account) { a.Method = FederationToken })}, "role ARN: has no use"},
		{"external id with FederationToken", []func(*Account){federation, set(func(a *Account) { a.ExternalID = "abc" })}, "external id: has no use"},
		{"AssumeRole over 12 hours", []func(*Account){set(func(a *Account) { a.MaxLifetime = 12*time.Hour + time.Second })}, "max lifetime: 12h0m1s is over the 12h0m0s"},
		{"FederationToken over 36 hours", []func(*Account){federation, set(func(a *Account) { a.MaxLifetime = 37 * time.Hour })}, "over the 36h0m0s"},
		{"under 15 minutes", []func(*Account){set(func(a *Account) { a.MaxLifetime = 10 * time.Minute })}, "under the shortest lifetime 15m0s"},
		{"AWS below 15 minutes", []func(*Account){set(func(a *Account) { a.MinLifetime = time.Minute })}, "under the 15m0s of AWS"},
		{"negative lifetime", []func(*Account){set(func(a *Account) { a.MaxLifetime = -time.Hour })}, "too short"},
		{"half a second", []func(*Account){set(func(a *Account) { a.MaxLifetime = time.Hour + time.Second/2 })}, "not in whole seconds"},
		{"profile and keys", []func(*Account){set(func(a *Account) { a.Profile, a.Credentials = "p", devsts.NewUser("u") })}, "excludes explicit credentials"},
		{"negative rate", []func(*Account){set(func(a *Account) { a.RatePerSecond = -1 })}, "rate per second:"},
		{"rate that is no number", []func(*Account){set(func(a *Account) { a.RatePerSecond = math.NaN() })}, "rate per second:"},
		{"endless rate", []func(*Account){set(func(a *Account) { a.RatePerSecond = math.Inf(1) })}, "rate per second:"},
		{"negative timeout", []func(*Account){set(func(a *Account) { a.Timeout = -1 })}, "timeout:"},
		{"long timeout", []func(*Account){set(func(a *Account) { a.Timeout = time.Hour })}, "timeout:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := valid(c.change...).Validate()
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			case err != nil && strings.Contains(err.Error(), "canary"):
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

// TestValidateReportsAllProblems: a provider fixes a file once.
func TestValidateReportsAllProblems(t *testing.T) {
	_, err := New(t.Context(), Account{Endpoint: "x", Region: "!", Method: AssumeRole, MaxLifetime: 100 * time.Hour, ExternalID: "x", Timeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"name:", "region:", "endpoint:", "timeout:", "external id:", "max lifetime:"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	s := open(t, Account{Name: "main", Endpoint: "http://127.0.0.1:9000", Method: AssumeRole, Credentials: devsts.NewUser("u")})
	a := s.Account()
	if a.Region != "us-east-1" || a.RoleARN != PlaceholderRoleARN || a.MaxLifetime != time.Hour || a.MinLifetime != 15*time.Minute || a.Timeout != 10*time.Second {
		t.Errorf("defaults are %+v", a)
	}
}

// fixed holds keys as the SDK's provider of fixed keys does.
type fixed struct{ Value aws.Credentials }

func (p fixed) Retrieve(context.Context) (aws.Credentials, error) { return p.Value, nil }

// TestAccountDoesNotPrintKeys in any way that a log would use.
func TestAccountDoesNotPrintKeys(t *testing.T) {
	a := valid(func(a *Account) {
		a.Credentials = fixed{aws.Credentials{AccessKeyID: "AKIAX", SecretAccessKey: ownSecret}}
	})
	s := open(t, a)
	encoded, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "account", a, "pointer", &a, "issuer", s)
	said := fmt.Sprintf("%v %+v %#v %s %v %+v %#v %d", a, a, a, &a, s, s, s, []any{a, s}) + string(encoded) + log.String()
	if strings.Contains(said, "canary") || !strings.Contains(said, `account "main" (assume_role in eu-central-1)`) {
		t.Error(said)
	}
}

func TestClearText(t *testing.T) {
	for url, want := range map[string]bool{
		"": false, "https://sts.example.org": false, "http://127.0.0.1:9000": false, "http://127.9.9.9": false,
		"http://[::1]:9000": false, "http://localhost:9000": false, "http://sts.example.org": true, "http://192.0.2.1": true,
	} {
		if got := clearText(url); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}
