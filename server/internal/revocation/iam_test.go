package revocation_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	userARN = "arn:aws:iam::000000000000:user/stoker"
	roleARN = "arn:aws:iam::000000000000:role/backup"
)

// local starts a local STS and IAM, and gives a client by the method.
func local(t *testing.T, method issuer.Method) (*devsts.Server, devsts.User, *revocation.AWS) {
	t.Helper()
	user := devsts.NewUser("stoker")
	sts, err := devsts.Start(devsts.Config{Users: []devsts.User{user}, Roles: []devsts.Role{{Name: "backup"}}})
	if err != nil {
		t.Fatal(err)
	}
	account := issuer.Account{Name: "main", Region: "us-east-1", Endpoint: sts.URL(), Method: method, Credentials: user}
	if method == issuer.AssumeRole {
		account.RoleARN = roleARN
	}
	issuing, err := issuer.New(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	client := revocation.NewAWS(revocation.AWSConfig{
		Config: awsiam.Config{Region: "us-east-1", Endpoint: sts.URL(), Keys: issuing.Keys()}, RoleARN: account.RoleARN, Caller: issuing.Caller,
	})
	t.Cleanup(func() {
		client.Close()
		issuing.Close()
		if err := sts.Close(); err != nil {
			t.Error(err)
		}
	})
	return sts, user, client
}

var methods = map[issuer.Method]struct {
	arn, subject string
	limit        int
}{
	issuer.FederationToken: {userARN, "user stoker", 2048},
	issuer.AssumeRole:      {roleARN, "role backup", 10240},
}

func TestAWSKeepsThePolicyOfTheUserOrRole(t *testing.T) {
	for method, want := range methods {
		t.Run(string(method), func(t *testing.T) {
			sts, user, client := local(t, method)
			in, err := client.Inline(t.Context())
			if err != nil || in != (revocation.Inline{Subject: want.subject, Limit: want.limit}) {
				t.Fatalf("at first %+v, %v", in, err)
			}
			if err := client.Delete(t.Context()); err != nil {
				t.Errorf("deleting nothing: %v", err)
			}
			document := revocation.Compose([]storage.Revocation{revoke(0, "user", id("user", 1), id("tenant", 1), base)}, want.limit).Text
			if err := client.Put(t.Context(), document); err != nil {
				t.Fatal(err)
			}
			if got := sts.InlinePolicy(want.arn, revocation.PolicyName); got != document {
				t.Errorf("stands %q", got)
			}
			others(t, sts, user)
			in, err = client.Inline(t.Context())
			if err != nil || in != (revocation.Inline{Subject: want.subject, Limit: want.limit, Document: document, Others: 2 * len(otherPolicy)}) {
				t.Errorf("with others %+v, %v", in, err)
			}
			if err := client.Put(t.Context(), `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::`+strings.Repeat("a", want.limit)+`"}]}`); err == nil ||
				!strings.Contains(err.Error(), "cannot write the inline policy stoker-revocations of "+want.subject+": LimitExceeded: Maximum policy size of") {
				t.Errorf("too long: %v", err)
			}
			if err := client.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			if in, err := client.Inline(t.Context()); err != nil || in.Document != "" || in.Others != 2*len(otherPolicy) {
				t.Errorf("at last %+v, %v", in, err)
			}
		})
	}
}

const otherPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`

// others puts two policies of other people's, one spread over lines.
func others(t *testing.T, sts *devsts.Server, user devsts.User) {
	t.Helper()
	c := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: aws.String(sts.URL()), Credentials: user, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	for name, document := range map[string]string{"a": otherPolicy, "z": strings.ReplaceAll(otherPolicy, ",", ",\n    ")} {
		if _, err := c.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: aws.String("stoker"), PolicyName: &name, PolicyDocument: &document}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("backup"), PolicyName: &name, PolicyDocument: &document}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAWSSaysWhatIsWrong(t *testing.T) {
	keys := devsts.NewUser("stoker")
	caller := func(arn string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return arn, err }
	}
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) }))
	defer html.Close()
	minio := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`<?xml version="1.0"?><ErrorResponse><Error><Code>InvalidParameterValue</Code><Message>SECRET: Unsupported action</Message></Error></ErrorResponse>`))
	}))
	defer minio.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, c := range map[string]struct {
		config revocation.AWSConfig
		want   string
	}{
		"root":                {revocation.AWSConfig{Caller: caller("arn:aws:iam::000000000000:root", nil)}, "is no IAM user and has no inline policies"},
		"a session":           {revocation.AWSConfig{Caller: caller("arn:aws:sts::000000000000:assumed-role/r/s", nil)}, "is no IAM user"},
		"another sort of STS": {revocation.AWSConfig{Caller: caller("somebody", nil)}, "is no IAM user"},
		"no answer of STS":    {revocation.AWSConfig{Caller: caller("", errors.New("account away"))}, "account away"},
		"no role":             {revocation.AWSConfig{RoleARN: "arn:aws:iam::000000000000:user/x"}, "is not the ARN of a role"},
		"a foreign role": {revocation.AWSConfig{RoleARN: "arn:aws:iam::111122223333:role/x", Caller: caller(userARN, nil)},
			"the role is in AWS account 111122223333 and the broker's keys are in 000000000000"},
		"STS away":   {revocation.AWSConfig{RoleARN: "arn:aws:iam::111122223333:role/x", Caller: caller("", errors.New("account away"))}, "account away"},
		"a web page": {revocation.AWSConfig{RoleARN: roleARN, Config: awsiam.Config{Endpoint: html.URL}}, "cannot list the inline policies of role backup: the answer is not one of IAM's"},
		"MinIO":      {revocation.AWSConfig{RoleARN: roleARN, Config: awsiam.Config{Endpoint: minio.URL}}, "cannot list the inline policies of role backup: InvalidParameterValue"},
		"nobody":     {revocation.AWSConfig{RoleARN: roleARN, Config: awsiam.Config{Endpoint: gone.URL}}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Region, c.config.Keys = "us-east-1", keys
			client := revocation.NewAWS(c.config)
			defer client.Close()
			for call, err := range map[string]error{"read": second(client.Inline(t.Context())), "write": client.Put(t.Context(), otherPolicy), "delete": client.Delete(t.Context())} {
				want := c.want
				if call != "read" {
					want = strings.Replace(want, "list the inline policies of", call+" the inline policy stoker-revocations of", 1)
				}
				// An answer to a write is empty anyway. That a web page took it
				// shows when it is read back.
				if call != "read" && name == "a web page" {
					continue
				}
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %s", call, err, want)
				}
				if err != nil && (strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), keys.SecretAccessKey.Reveal())) {
					t.Errorf("%s shows a secret: %v", call, err)
				}
			}
		})
	}
	failing := revocation.NewAWS(revocation.AWSConfig{Config: awsiam.Config{Region: "us-east-1", Keys: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("it printed SECRET")
	})}})
	defer failing.Close()
	if _, err := failing.Inline(t.Context()); err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "keys cannot be had") {
		t.Errorf("no keys: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// Each failure is worded the same each time: the trail records a change of it.
func TestFailuresOfIAM(t *testing.T) {
	sts, _, client := local(t, issuer.FederationToken)
	for kind, want := range map[devsts.FaultKind]string{
		devsts.Deny:     "AccessDenied: User: " + userARN + " is not authorized to perform: iam:ListUserPolicies",
		devsts.Throttle: "cannot list the inline policies of user stoker: Throttling",
		devsts.Drop:     "EOF",
	} {
		if err := sts.Inject(devsts.Fault{Kind: kind, Action: "ListUserPolicies", Count: 2}); err != nil {
			t.Fatal(err)
		}
		_, first := client.Inline(t.Context())
		_, again := client.Inline(t.Context())
		if first == nil || again == nil || first.Error() != again.Error() || !strings.Contains(first.Error(), want) {
			t.Errorf("%s: %v, then %v", kind, first, again)
		}
	}
	if err := sts.Inject(devsts.Fault{Kind: devsts.Hang, Action: "PutUserPolicy", Count: 1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.Put(ctx, otherPolicy); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("hanging: %v", err)
	}
}
