package issuer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

var methods = []Method{AssumeRole, FederationToken}

func TestIssue(t *testing.T) {
	for _, method := range methods {
		t.Run(string(method), func(t *testing.T) {
			f := start(t)
			s := open(t, f.account(method))
			before := time.Now()
			c, err := s.Issue(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			if c.IssuedAt.Before(before.Add(-time.Millisecond)) || c.IssuedAt.After(time.Now()) {
				t.Errorf("issued at %s, asked at %s", c.IssuedAt, before)
			}
			if life := c.Expires.Sub(c.IssuedAt); (life - 15*time.Minute).Abs() > 10*time.Second {
				t.Errorf("it lasts %s", life)
			}
			got := f.Issued()[0]
			want := devsts.Issued{
				RequestID: got.RequestID, Action: method.Operation(), AccessKeyID: c.AccessKeyID,
				Caller: "arn:aws:iam::000000000000:user/broker", ARN: got.ARN, Name: "acme.0198c2d07b1e", Policy: policy,
				Tags:     []devsts.Tag{{Key: "tenant", Value: "acme"}, {Key: "agent", Value: "0198c2d0-7b1e-7cc4-9d5e-51d6f4a3c1aa"}},
				IssuedAt: got.IssuedAt, Expires: c.Expires, PackedPolicySize: c.PackedPolicySize,
			}
			if method == AssumeRole {
				want.Role = "backup"
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if c.PackedPolicySize < 1 || c.PackedPolicySize > 50 {
				t.Errorf("packed size is %d", c.PackedPolicySize)
			}
			works(t, f, c)
		})
	}
}

// works calls STS with the credential.
func works(t *testing.T, f *fixture, c Credential) {
	t.Helper()
	a := f.account(FederationToken)
	a.Credentials = keys(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	findings, err := open(t, a).Check(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(findings), "calls STS as arn:aws:sts::000000000000:") {
		t.Errorf("the credential does not work: %v, %v", findings, err)
	}
}

// TestCredentialDoesNotPrint in any way that a log would use.
func TestCredentialDoesNotPrint(t *testing.T) {
	f := start(t)
	c, err := open(t, f.account(AssumeRole)).Issue(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v", c, c, &c)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, canary := range []string{c.SecretAccessKey.Reveal(), c.SessionToken.Reveal()} {
		if canary == "" || strings.Contains(all+string(encoded), canary) {
			t.Errorf("prints %s %s", all, encoded)
		}
	}
}

func TestExternalID(t *testing.T) {
	f := start(t)
	a := f.account(AssumeRole)
	a.RoleARN = "arn:aws:iam::000000000000:role/guarded"
	if e := issueError(t, open(t, a)); e.Code != "AccessDenied" {
		t.Errorf("without: %v", e)
	}
	a.ExternalID = "the-customer"
	if _, err := open(t, a).Issue(t.Context(), request()); err != nil {
		t.Errorf("with: %v", err)
	}
}

// TestNoTags: an STS that knows nothing of tags is not sent an empty list.
func TestNoTags(t *testing.T) {
	var form string
	a := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		form = r.PostForm.Encode()
		text(200, granted("ASIAX", otherSecret, otherToken, time.Now().Add(15*time.Minute)))(w, r)
	})
	r := request()
	r.Tags = nil
	if _, err := open(t, a).Issue(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(form, "Tags") || strings.Contains(form, "ExternalId") || strings.Contains(form, "SourceIdentity") {
		t.Error(form)
	}
}

// TestFractionIsCutOff: a lifetime that ends with a certificate is not
// rounded past it.
func TestFractionIsCutOff(t *testing.T) {
	f := start(t)
	r := request()
	r.Duration = 20*time.Minute + 999*time.Millisecond
	c, err := open(t, f.account(FederationToken)).Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	i := f.Issued()[0]
	if i.Expires.Sub(i.IssuedAt) != 20*time.Minute {
		t.Errorf("asked for %s", i.Expires.Sub(i.IssuedAt))
	}
	if c.Expires.After(i.Expires) {
		t.Errorf("it is said to last until %s, and does until %s", c.Expires, i.Expires)
	}
}

func TestShortLifetimeWhereSTSAgrees(t *testing.T) {
	f := start(t, func(c *devsts.Config) { c.MinLifetime = 20 * time.Second })
	a := f.account(FederationToken)
	a.MinLifetime, a.MaxLifetime = 20*time.Second, 20*time.Second
	r := request()
	r.Duration = 20 * time.Second
	c, err := open(t, a).Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	works(t, f, c)
}

// TestPackedSizeOfNewerSTS: where only the utilization is sent, it counts.
func TestPackedSizeOfNewerSTS(t *testing.T) {
	good := granted("ASIAX", otherSecret, otherToken, time.Now().Add(15*time.Minute))
	for fields, want := range map[string]int{
		"": 0,
		"<SessionTokenUtilization>31</SessionTokenUtilization>":                                       31,
		"<PackedPolicySize>7</PackedPolicySize><SessionTokenUtilization>31</SessionTokenUtilization>": 7,
	} {
		s := open(t, answering(t, text(200, strings.Replace(good, "</AssumeRoleResult>", fields+"</AssumeRoleResult>", 1))))
		if c, err := s.Issue(t.Context(), request()); err != nil || c.PackedPolicySize != want {
			t.Errorf("%s: got %d, %v", fields, c.PackedPolicySize, err)
		}
	}
}

// TestConcurrentIssues shares one issuer.
func TestConcurrentIssues(t *testing.T) {
	f := start(t)
	s := open(t, f.account(AssumeRole))
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if _, err := s.Issue(t.Context(), request()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := f.Calls()["AssumeRole"]; n != 16 {
		t.Errorf("%d calls", n)
	}
}

// clearAWSEnvironment hides the machine's own AWS configuration.
func clearAWSEnvironment(t *testing.T) string {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	return dir
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func profileOf(name string, u devsts.User) string {
	return fmt.Sprintf("[%s]\naws_access_key_id=%s\naws_secret_access_key=%s\n", name, u.AccessKeyID, u.SecretAccessKey.Reveal())
}

func TestKeysOfDefaultChain(t *testing.T) {
	clearAWSEnvironment(t)
	f := start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", f.user.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", f.user.SecretAccessKey.Reveal())
	a := f.account(AssumeRole)
	a.Credentials = nil
	if _, err := open(t, a).Issue(t.Context(), request()); err != nil {
		t.Error(err)
	}
}

func TestKeysOfProfile(t *testing.T) {
	dir := clearAWSEnvironment(t)
	f := start(t)
	writeFile(t, filepath.Join(dir, "credentials"), profileOf("broker", f.user))
	a := f.account(FederationToken)
	a.Credentials, a.Profile = nil, "broker"
	if _, err := open(t, a).Issue(t.Context(), request()); err != nil {
		t.Error(err)
	}
}

// TestEndpointIsForIssuingOnly: a profile that assumes a role first does so at
// its own STS, and its session then issues at the account's endpoint.
func TestEndpointIsForIssuingOnly(t *testing.T) {
	dir := clearAWSEnvironment(t)
	seal := devsts.NewUser("").SecretAccessKey
	sealed := func(c *devsts.Config) { c.Seal = seal }
	first, second := start(t, sealed), start(t, sealed)
	writeFile(t, filepath.Join(dir, "credentials"), profileOf("base", first.user))
	writeFile(t, filepath.Join(dir, "config"),
		"[profile broker]\nrole_arn="+roleARN+"\nsource_profile=base\nregion="+region+"\nservices=local\n[services local]\nsts =\n  endpoint_url = "+first.URL()+"\n")
	a := second.account(AssumeRole)
	a.Credentials, a.Profile = nil, "broker"
	if _, err := open(t, a).Issue(t.Context(), request()); err != nil {
		t.Error(err)
	}
	if first.Calls()["AssumeRole"] != 1 || second.Calls()["AssumeRole"] != 1 {
		t.Errorf("calls at the profile's STS %v, at the account's %v", first.Calls(), second.Calls())
	}
	if caller := second.Issued()[0].Caller; !strings.HasPrefix(caller, "arn:aws:sts::000000000000:assumed-role/backup/") {
		t.Errorf("the caller is %s", caller)
	}
}

func TestUnknownProfile(t *testing.T) {
	clearAWSEnvironment(t)
	_, err := New(t.Context(), valid(func(a *Account) { a.Profile = "nobody" }))
	if err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
}

// TestNoRetries: the environment cannot turn the SDK's retries on.
func TestNoRetries(t *testing.T) {
	clearAWSEnvironment(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "5")
	t.Setenv("AWS_RETRY_MODE", "adaptive")
	t.Setenv("AWS_NEW_RETRIES_2026", "true")
	f := start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", f.user.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", f.user.SecretAccessKey.Reveal())
	a := f.account(AssumeRole)
	a.Credentials = nil
	s := open(t, a)
	for i, kind := range []devsts.FaultKind{devsts.Throttle, devsts.ServerError, devsts.Unavailable, devsts.Garble, devsts.Drop} {
		f.inject(t, devsts.Fault{Kind: kind})
		if e := issueError(t, s); e.Kind == Permanent {
			t.Errorf("%s: got %v", kind, e)
		}
		if n := f.Calls()["AssumeRole"]; n != i+1 {
			t.Errorf("%s: %d calls after %d issues", kind, n, i+1)
		}
		f.ClearFaults()
	}
}

// rotating gives other keys each time it is asked.
type rotating struct{ users []devsts.User }

func (r *rotating) Retrieve(ctx context.Context) (aws.Credentials, error) {
	u := r.users[0]
	if len(r.users) > 1 {
		r.users = r.users[1:]
	}
	return u.Retrieve(ctx)
}

// TestRotatedKeysAreFound: once STS no longer knows the key, its source is
// asked again.
func TestRotatedKeysAreFound(t *testing.T) {
	f := start(t)
	a := f.account(FederationToken)
	a.Credentials = &rotating{[]devsts.User{devsts.NewUser("deleted"), f.user}}
	s := open(t, a)
	if e := issueError(t, s); e.Code != "InvalidClientTokenId" || e.Kind != Permanent {
		t.Errorf("got %v", e)
	}
	if _, err := s.Issue(t.Context(), request()); err != nil {
		t.Error(err)
	}
}
