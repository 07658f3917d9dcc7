package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// found checks the findings: for each wanted one, severity and part of its
// line, in order, and no others.
func found(t *testing.T, a Account, want ...string) {
	t.Helper()
	findings, err := open(t, a).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range findings {
		lines = append(lines, f.String())
	}
	said := strings.Join(lines, "\n")
	if len(findings) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(findings), len(want), said)
	}
	for i, w := range want {
		severity, part, _ := strings.Cut(w, ": ")
		if string(findings[i].Severity) != severity || !strings.Contains(findings[i].Message, part) ||
			!strings.Contains(findings[i].Message, `account "main": `) || strings.Contains(findings[i].Message, "\n") {
			t.Errorf("got  %s\nwant %s", lines[i], w)
		}
	}
	if strings.Contains(said, "canary") {
		t.Errorf("a finding shows a secret: %s", said)
	}
}

// session gives keys of a session of the fixture's STS.
func (f *fixture) session(t *testing.T, m Method) aws.CredentialsProvider {
	t.Helper()
	c, err := open(t, f.account(m)).Issue(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	return keys(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
}

func TestCheck(t *testing.T) {
	f := start(t)
	roleKeys, federatedKeys := f.session(t, AssumeRole), f.session(t, FederationToken)
	hours := func(n int) func(*Account) {
		return func(a *Account) { a.MaxLifetime = time.Duration(n) * time.Hour }
	}
	use := func(p aws.CredentialsProvider) func(*Account) { return func(a *Account) { a.Credentials = p } }
	for _, c := range []struct {
		name   string
		method Method
		change []func(*Account)
		want   []string
	}{
		{"user, AssumeRole", AssumeRole, []func(*Account){hours(12)}, []string{"note: calls STS as arn:aws:iam::000000000000:user/broker by method assume_role"}},
		{"user, FederationToken", FederationToken, []func(*Account){hours(36)}, []string{"note: calls STS as arn:aws:iam::000000000000:user/broker"}},
		{"role, AssumeRole of an hour", AssumeRole, []func(*Account){use(roleKeys)}, []string{"note: calls STS as arn:aws:sts::000000000000:assumed-role/backup/"}},
		{"role, AssumeRole of two hours", AssumeRole, []func(*Account){use(roleKeys), hours(2)}, []string{
			"note: calls STS as", "fatal: role chaining, which STS refuses over 1h0m0s: lower the max lifetime from 2h0m0s",
		}},
		{"role, FederationToken", FederationToken, []func(*Account){use(roleKeys)}, []string{
			"fatal: method federation_token needs an IAM user's long-term key", "note: calls STS as",
		}},
		{"federated, AssumeRole", AssumeRole, []func(*Account){use(federatedKeys)}, []string{"note: calls STS as", "fatal: federated user's session"}},
		{"federated, FederationToken", FederationToken, []func(*Account){use(federatedKeys)}, []string{"fatal: is temporary", "note: calls STS as"}},
		{"root, AssumeRole", AssumeRole, []func(*Account){use(f.root)}, []string{"note: calls STS as", "fatal: root user's, which cannot assume a role"}},
		{"root, FederationToken", FederationToken, []func(*Account){use(f.root)}, []string{"note: calls STS as", "warning: can do everything"}},
		{"root, FederationToken of two hours", FederationToken, []func(*Account){use(f.root), hours(2)}, []string{
			"note: calls STS as", "warning: can do everything", "warning: cuts federated sessions of the root user to 1h0m0s",
		}},
		{"role of another account", AssumeRole, []func(*Account){func(a *Account) { a.RoleARN = "arn:aws:iam::111111111111:role/backup" }}, []string{
			"note: calls STS as", "note: the role is in AWS account 111111111111, the keys are in 000000000000",
		}},
		{"unknown key", AssumeRole, []func(*Account){use(keys("AKIANOBODY", ownSecret, ""))}, []string{"fatal: STS does not know the key AKIANOBODY"}},
		{"wrong secret", AssumeRole, []func(*Account){use(keys(f.user.AccessKeyID, ownSecret, ""))}, []string{"fatal: the secret does not belong to the key " + f.user.AccessKeyID}},
		{"empty keys", AssumeRole, []func(*Account){use(keys("", "", ""))}, []string{"fatal: the broker's own AWS keys cannot be had"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.account(c.method)
			for _, ch := range c.change {
				ch(&a)
			}
			found(t, a, c.want...)
		})
	}
	if n := f.Calls()["GetFederationToken"]; n != 1 {
		t.Errorf("Check issued: %v", f.Calls())
	}
}

// TestCheckWhileSTSIsInTrouble: nothing of it keeps the broker from starting.
func TestCheckWhileSTSIsInTrouble(t *testing.T) {
	for _, kind := range []devsts.FaultKind{devsts.Throttle, devsts.ServerError, devsts.Unavailable, devsts.Garble, devsts.Drop, devsts.Hang} {
		t.Run(string(kind), func(t *testing.T) {
			f := start(t)
			f.inject(t, devsts.Fault{Kind: kind})
			a := f.account(AssumeRole)
			a.Timeout = 100 * time.Millisecond
			found(t, a, "warning: the keys could not be checked, and the broker goes on trying")
		})
	}
}

func TestCheckWithoutNetwork(t *testing.T) {
	away := Account{Name: "main", Endpoint: "http://127.0.0.1:1", Method: AssumeRole, Credentials: keys("AKIAX", ownSecret, "")}
	found(t, away, "warning: connection refused")

	temporary := away
	temporary.Credentials, temporary.MaxLifetime = keys("ASIAX", ownSecret, ownToken), 2*time.Hour
	found(t, temporary, "warning: connection refused", "warning: the key ASIAX is temporary: if it is a role's, STS refuses lifetimes over 1h0m0s")

	federation := away
	federation.Method, federation.Credentials = FederationToken, keys("ASIAX", ownSecret, ownToken)
	found(t, federation, "fatal: the key ASIAX is temporary", "warning: connection refused")
}

// TestCheckWithOtherSTS: those that have no GetCallerIdentity, each in its way.
func TestCheckWithOtherSTS(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"as MinIO":             text(400, refusal("InvalidParameterValue", "Unsupported action GetCallerIdentity")),
		"InvalidAction":        text(400, refusal("InvalidAction", "Could not find operation")),
		"NotImplemented":       text(501, refusal("NotImplemented", "A header you provided implies functionality that is not implemented")),
		"HTTP 404 in HTML":     text(404, "<html></body>"),
		"HTTP 405 without XML": text(405, ""),
	} {
		t.Run(name, func(t *testing.T) {
			found(t, answering(t, h), "note: this STS has no GetCallerIdentity")
		})
	}
}

func TestCheckRefusals(t *testing.T) {
	for code, want := range map[string]string{
		"RegionDisabledException": "fatal: STS is not activated in us-east-1",
		"AccessDenied":            "fatal: STS refuses the key AKIAEXAMPLE: account",
		"InvalidAccessKeyId":      "fatal: STS does not know the key AKIAEXAMPLE",
		"ExpiredToken":            "warning: the keys could not be checked",
	} {
		found(t, answering(t, text(403, refusal(code, "because"))), want)
	}
}

func TestCheckStrangeIdentity(t *testing.T) {
	body := `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>somebody ` + otherSecret + `</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`
	found(t, answering(t, text(200, body)), "note: STS names the caller somebody REDACTED, which is not an AWS identity")
}

func TestCheckUnencryptedEndpoint(t *testing.T) {
	a := silentAccount()
	a.Endpoint = "http://sts.example.org"
	a.HTTPClient = &http.Client{Transport: failing{}}
	found(t, a, "warning: the endpoint http://sts.example.org is not encrypted", "warning: no route")
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }

func TestCheckSkewedClock(t *testing.T) {
	f := start(t)
	f.ahead.Store(int64(3*time.Minute + 30*time.Second))
	found(t, f.account(AssumeRole), "note: calls STS as", "warning: this machine's clock differs from STS's by 3m")
}

func TestCheckMissingKeys(t *testing.T) {
	clearAWSEnvironment(t)
	found(t, valid(), "fatal: set a profile, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
}

func TestCheckSlowKeySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := silentAccount()
		release := make(chan struct{})
		a.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			<-release
			return aws.Credentials{}, errors.New("too late")
		})
		found(t, a, "warning: no answer within 10s; the broker goes on trying")
		close(release)
	})
}

// TestCheckEndsWithItsContext: that, and only that, is an error.
func TestCheckEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if findings, err := open(t, silentAccount()).Check(ctx); !errors.Is(err, context.Canceled) || findings != nil {
			t.Errorf("got %v, %v", findings, err)
		}
		if findings, err := open(t, silentAccount()).Check(ctx); !errors.Is(err, context.Canceled) || findings != nil {
			t.Errorf("got %v, %v", findings, err)
		}
	})
}

func ExampleFinding() {
	fmt.Println(Finding{Fatal, `account "main": the keys are the AWS account's root user's, which cannot assume a role: make an IAM user for the broker`})
	// Output: fatal: account "main": the keys are the AWS account's root user's, which cannot assume a role: make an IAM user for the broker
}
