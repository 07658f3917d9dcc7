package devsts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/secret"
)

const anyDeny = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`

// code is AWS's code of an error, "" for nil.
func code(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Fatalf("no API error: %v", err)
	}
	return api.ErrorCode()
}

func (f *fixture) iam(keys aws.CredentialsProvider) *iam.Client {
	return iam.New(iam.Options{
		Region: region, BaseEndpoint: aws.String(f.URL()), Credentials: keys,
		Retryer: aws.NopRetryer{}, HTTPClient: f.http,
	})
}

// s3 is the SDK's client of S3 with issued credentials.
func (f *fixture) s3(keys aws.CredentialsProvider) *s3.Client {
	return s3.New(s3.Options{
		Region: region, BaseEndpoint: aws.String(f.URL()), Credentials: keys, UsePathStyle: true,
		Retryer: aws.NopRetryer{}, HTTPClient: f.http,
	})
}

func TestInlinePoliciesOfUsersAndRoles(t *testing.T) {
	f := start(t)
	c, ctx := f.iam(f.user), t.Context()
	spaced := strings.ReplaceAll(anyDeny, ",", ",\n ")

	if _, err := c.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("broker"), PolicyName: aws.String("b"), PolicyDocument: aws.String(policy)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("backup"), PolicyName: aws.String("r"), PolicyDocument: aws.String(spaced)}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: aws.String("broker"), PolicyName: aws.String("b")})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := url.PathUnescape(*got.PolicyDocument); err != nil || text != policy || *got.UserName != "broker" || *got.PolicyName != "b" {
		t.Errorf("got %s of %s: %s (%v)", *got.PolicyName, *got.UserName, text, err)
	}
	role, err := c.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("backup"), PolicyName: aws.String("r")})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := url.PathUnescape(*role.PolicyDocument); err != nil || text != spaced || *role.RoleName != "backup" {
		t.Errorf("got %s (%v)", text, err)
	}
	if f.InlinePolicy(roleARN, "r") != spaced || f.InlinePolicy("arn:aws:iam::000000000000:user/broker", "b") != policy {
		t.Error("InlinePolicy gives something else")
	}
	listed, err := c.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: aws.String("backup")})
	if err != nil || !cmp.Equal(listed.PolicyNames, []string{"r"}) || listed.IsTruncated {
		t.Errorf("listed %v, %v", listed, err)
	}
	if _, err := c.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: aws.String("backup"), PolicyName: aws.String("r")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("backup"), PolicyName: aws.String("r")})
	if got := code(t, err); got != "NoSuchEntity" {
		t.Errorf("after the deletion: %q", got)
	}
}

func TestPolicyNamesComeInPages(t *testing.T) {
	f := start(t)
	c := f.iam(f.root)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("p%d", i))
		if _, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("long"), PolicyName: aws.String(want[i]), PolicyDocument: aws.String(anyDeny)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	pages := iam.NewListRolePoliciesPaginator(c, &iam.ListRolePoliciesInput{RoleName: aws.String("long"), MaxItems: aws.Int32(3)})
	n := 0
	for ; pages.HasMorePages(); n++ {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.PolicyNames...)
	}
	if diff := cmp.Diff(want, got); diff != "" || n != 3 {
		t.Errorf("%d pages: %s", n, diff)
	}
}

// iamForm makes parameters of pairs, with the version of IAM.
func iamForm(pairs ...string) url.Values {
	v := form(pairs...)
	v.Set("Version", "2010-05-08")
	return v
}

func TestInlinePolicyLimitsAndRefusals(t *testing.T) {
	f := start(t)
	padded := func(n int) string {
		return strings.Replace(policy, "b/p", "b/"+strings.Repeat("p", n-len(policy)+1), 1)
	}
	put := func(name, document string) url.Values {
		return iamForm("Action", "PutUserPolicy", "UserName", "broker", "PolicyName", name, "PolicyDocument", document)
	}
	role := func(document string) url.Values {
		return iamForm("Action", "PutRolePolicy", "RoleName", "backup", "PolicyName", "p", "PolicyDocument", document)
	}
	for _, c := range []struct {
		name   string
		form   url.Values
		code   string
		status int
		text   string
	}{
		{"all the space of a user", put("p", padded(2048)), "", 200, ""},
		{"the same again", put("p", padded(2048)), "", 200, ""},
		{"white space is free", put("p", padded(2048)+strings.Repeat(" \n\t", 100)), "", 200, ""},
		{"one more", put("p", padded(2049)), "LimitExceeded", 409, "Maximum policy size of 2048 bytes exceeded for user broker"},
		{"another policy shares the space", put("q", policy), "LimitExceeded", 409, "2048"},
		{"all the space of a role", role(padded(10240)), "", 200, ""},
		{"more than the space of a role", role(padded(10241)), "LimitExceeded", 409, "Maximum policy size of 10240 bytes exceeded for role backup"},
		{"no user", iamForm("Action", "PutUserPolicy", "UserName", "nobody", "PolicyName", "p", "PolicyDocument", policy), "NoSuchEntity", 404, "The user with name nobody cannot be found."},
		{"no role", iamForm("Action", "GetRolePolicy", "RoleName", "nobody", "PolicyName", "p"), "NoSuchEntity", 404, "The role with name nobody cannot be found."},
		{"no policy to get", iamForm("Action", "GetUserPolicy", "UserName", "broker", "PolicyName", "z"), "NoSuchEntity", 404, "The user policy with name z cannot be found."},
		{"no policy to delete", iamForm("Action", "DeleteRolePolicy", "RoleName", "backup", "PolicyName", "z"), "NoSuchEntity", 404, "The role policy with name z cannot be found."},
		{"broken", put("p", `{"Statement":[`), "MalformedPolicyDocument", 400, ""},
		{"a principal", put("p", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}]}`), "MalformedPolicyDocument", 400, "principal"},
		{"characters", put("p", "\u0100"), "ValidationError", 400, "policyDocument"},
		{"empty", put("p", ""), "ValidationError", 400, "policyDocument"},
		{"no document", iamForm("Action", "PutUserPolicy", "UserName", "broker", "PolicyName", "p"), "ValidationError", 400, "policyDocument"},
		{"no policy name", iamForm("Action", "GetUserPolicy", "UserName", "broker"), "ValidationError", 400, "policyName"},
		{"no user name", iamForm("Action", "ListUserPolicies"), "ValidationError", 400, "userName"},
		{"odd policy name", iamForm("Action", "GetUserPolicy", "UserName", "broker", "PolicyName", "a/b"), "ValidationError", 400, "policyName"},
		{"long policy name", iamForm("Action", "GetUserPolicy", "UserName", "broker", "PolicyName", strings.Repeat("p", 129)), "ValidationError", 400, "policyName"},
		{"long role name", iamForm("Action", "ListRolePolicies", "RoleName", strings.Repeat("r", 65)), "ValidationError", 400, "roleName"},
		{"no items", iamForm("Action", "ListUserPolicies", "UserName", "broker", "MaxItems", "0"), "ValidationError", 400, "maxItems"},
		{"items no number", iamForm("Action", "ListUserPolicies", "UserName", "broker", "MaxItems", "x"), "MalformedInput", 400, ""},
		{"unknown parameter", iamForm("Action", "ListUserPolicies", "UserName", "broker", "Path", "/"), "InvalidQueryParameter", 400, ""},
		{"unknown parameter of one", iamForm("Action", "GetUserPolicy", "UserName", "broker", "PolicyName", "p", "Path", "/"), "InvalidQueryParameter", 400, ""},
		{"a call of STS", iamForm("Action", "GetCallerIdentity"), "InvalidAction", 400, ""},
		{"the version of STS", form("Action", "ListUserPolicies", "UserName", "broker"), "InvalidAction", 400, ""},
		{"an operator that is not evaluated", put("p", condition1("NumericLessThan", "aws:userid", "7")), "NotImplemented", 501, "operator NumericLessThan"},
		{"a key that is not evaluated", put("p", condition1("StringEquals", "aws:SourceVpc", "v")), "NotImplemented", 501, "key aws:SourceVpc"},
		{"a variable", put("p", condition1("StringEquals", "aws:userid", "${aws:username}")), "NotImplemented", 501, "variable"},
		{"no date", put("p", condition1("DateLessThan", "aws:TokenIssueTime", "yesterday")), "NotImplemented", 501, "RFC 3339"},
		{"a number as value", put("p", strings.ReplaceAll(condition1("StringEquals", "aws:userid", "7"), `"7"`, `7`)), "NotImplemented", 501, "values other than strings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := f.request(t, c.form)
			sign(t, r, c.form.Encode(), signing{user: f.user, service: "iam"})
			a := f.send(t, r)
			if a.status != c.status || a.Code != c.code || !strings.Contains(a.Text, c.text) {
				t.Errorf("got %d %s %q, want %d %s %q", a.status, a.Code, a.Text, c.status, c.code, c.text)
			}
			if c.code != "" && !strings.Contains(a.body, "https://iam.amazonaws.com/doc/2010-05-08/") {
				t.Errorf("not in IAM's name: %s", a.body)
			}
		})
	}
}

// condition1 is a policy that denies everything under one condition.
func condition1(operator, key, value string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{%q:{%q:%q}}}]}`, operator, key, value)
}

func TestFederatedUsersMayNotCallIAM(t *testing.T) {
	f := start(t)
	_, err := f.iam(f.federate(t, "fed", nil)).ListUserPolicies(t.Context(), &iam.ListUserPoliciesInput{UserName: aws.String("broker")})
	if err == nil || !strings.Contains(err.Error(), "is not authorized to perform: iam:ListUserPolicies") {
		t.Errorf("got %v", err)
	}
}

// federate gets a federated user's credentials.
func (f *fixture) federate(t *testing.T, name string, tags map[string]string) aws.CredentialsProvider {
	t.Helper()
	in := &sts.GetFederationTokenInput{Name: aws.String(name), Policy: aws.String(lists)}
	for key, value := range tags {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	out, err := f.client(f.user).GetFederationToken(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return provider(out.Credentials)
}

func (f *fixture) assume(t *testing.T, session string, tags map[string]string) aws.CredentialsProvider {
	t.Helper()
	in := &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String(session), Policy: aws.String(lists)}
	for key, value := range tags {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	out, err := f.client(f.user).AssumeRole(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return provider(out.Credentials)
}

func provider(c *types.Credentials) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken}, nil
	})
}

// lists is a session policy that lets one prefix be listed.
const lists = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":"arn:aws:s3:::bucket","Condition":{"StringLike":{"s3:prefix":["p/*"]}}}]}`

// probe lists a prefix and gives AWS's code.
func (f *fixture) probe(t *testing.T, keys aws.CredentialsProvider, bucket, prefix string) string {
	t.Helper()
	out, err := f.s3(keys).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String(prefix)})
	if err == nil && (*out.KeyCount != 0 || *out.Name != bucket || *out.Prefix != prefix) {
		t.Errorf("listed %d keys of %q in %q", *out.KeyCount, *out.Prefix, *out.Name)
	}
	return code(t, err)
}

func TestListingFollowsTheSessionPolicy(t *testing.T) {
	f := start(t)
	for name, keys := range map[string]aws.CredentialsProvider{"federated": f.federate(t, "fed", nil), "assumed": f.assume(t, "session", nil)} {
		for _, c := range []struct{ bucket, prefix, want string }{
			{"bucket", "p/", ""},
			{"bucket", "p/deeper/é", ""},
			{"bucket", "p", "AccessDenied"},
			{"bucket", "p2/", "AccessDenied"},
			{"bucket", "", "AccessDenied"},
			{"other", "p/", "AccessDenied"},
		} {
			if got := f.probe(t, keys, c.bucket, c.prefix); got != c.want {
				t.Errorf("%s: %q of %q: got %q, want %q", name, c.prefix, c.bucket, got, c.want)
			}
		}
	}
	if got := f.probe(t, f.user, "other", "p/"); got != "" {
		t.Errorf("a user without inline policies: %q", got)
	}
	if n := f.Calls()[listObjectsV2]; n != 13 {
		t.Errorf("%d calls are counted", n)
	}
}

func TestOtherCallsOfS3AreRefused(t *testing.T) {
	f := start(t)
	c := f.s3(f.user)
	_, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	if got := code(t, err); got != "NotImplemented" {
		t.Errorf("GetObject: %q", got)
	}
	stranger := NewUser("stranger")
	if got := f.probe(t, stranger, "bucket", ""); got != "InvalidAccessKeyId" {
		t.Errorf("a stranger: %q", got)
	}
	wrong := f.user
	wrong.SecretAccessKey = stranger.SecretAccessKey
	if got := f.probe(t, wrong, "bucket", ""); got != "SignatureDoesNotMatch" {
		t.Errorf("the wrong key: %q", got)
	}
	if err := f.Inject(Fault{Kind: Deny, Action: listObjectsV2, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if got := f.probe(t, f.user, "bucket", ""); got != "AccessDenied" {
		t.Errorf("with a fault: %q", got)
	}
	if _, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(-1)}); code(t, err) != "InvalidArgument" {
		t.Errorf("negative: %v", err)
	}
	keys := f.federate(t, "fed", nil)
	f.ahead.Store(int64(13 * time.Hour))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+"/bucket?list-type=2", nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sign(t, r, "", signing{user: User{AccessKeyID: k.AccessKeyID, SecretAccessKey: secret.New(f.seal.secretKey(k.AccessKeyID))}, token: k.SessionToken, service: "s3", at: time.Now().Add(13 * time.Hour)})
	if a := f.send(t, r); !strings.Contains(a.body, "<Code>ExpiredToken</Code>") {
		t.Errorf("expired: %s", a.body)
	}
}

// TestDenialsNarrowedByTagsAndTime: what a Deny in an inline policy says binds
// exactly the sessions it names.
func TestDenialsNarrowedByTagsAndTime(t *testing.T) {
	for _, method := range []string{"federated", "assumed"} {
		t.Run(method, func(t *testing.T) {
			f := start(t)
			get := f.federate
			if method == "assumed" {
				get = f.assume
			}
			old := get(t, "acme-old", map[string]string{"Tenant": "acme"})
			other := get(t, "borg-old", map[string]string{"Tenant": "borg"})
			bare := get(t, "bare-old", nil)
			f.ahead.Store(int64(time.Minute))
			young := get(t, "acme-new", map[string]string{"Tenant": "acme"})
			moment := time.Now().Add(30 * time.Second).UTC().Format(time.RFC3339)
			f.deny(t, fmt.Sprintf(`{"Version":"2012-10-17","Statement":[
				{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/tenant":["nobody","acme"]},"DateLessThan":{"aws:TokenIssueTime":%q}}},
				{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":["*:borg-???"]}}}]}`, moment))
			for name, c := range map[string]struct {
				keys aws.CredentialsProvider
				want string
			}{
				"older, tagged": {old, "AccessDenied"}, "younger, tagged": {young, ""}, "by name": {other, "AccessDenied"},
				"untagged": {bare, ""}, "the user's own": {f.user, ""},
			} {
				if got := f.probe(t, c.keys, "bucket", "p/"); got != c.want {
					t.Errorf("%s: got %q, want %q", name, got, c.want)
				}
			}
			// The one call that nobody is ever denied.
			if _, err := f.client(old).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// deny gives the broker's user and the role one inline policy.
func (f *fixture) deny(t *testing.T, document string) {
	t.Helper()
	c := f.iam(f.root)
	if _, err := c.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: aws.String("broker"), PolicyName: aws.String("d"), PolicyDocument: aws.String(document)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("backup"), PolicyName: aws.String("d"), PolicyDocument: aws.String(document)}); err != nil {
		t.Fatal(err)
	}
}

func TestADenialBindsTheUserItself(t *testing.T) {
	f := start(t)
	f.deny(t, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":["sts:Get*","sts:AssumeRole","iam:Put*"],"NotResource":"arn:aws:iam::000000000000:role/next"}}`)
	f.want(t, f.user, form("Action", "GetFederationToken", "Name", "fed"), "AccessDenied", 403)
	f.want(t, f.user, form("Action", "AssumeRole", "RoleArn", roleARN, "RoleSessionName", "session"), "AccessDenied", 403)
	f.want(t, f.user, form("Action", "GetCallerIdentity"), "", 200)
	_, err := f.iam(f.user).PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: aws.String("broker"), PolicyName: aws.String("d"), PolicyDocument: aws.String(policy)})
	if err == nil || !strings.Contains(err.Error(), "iam:PutUserPolicy on resource: arn:aws:iam::000000000000:user/broker with an explicit deny") {
		t.Errorf("got %v", err)
	}
	if _, err := f.iam(f.user).DeleteUserPolicy(t.Context(), &iam.DeleteUserPolicyInput{UserName: aws.String("broker"), PolicyName: aws.String("d")}); err != nil {
		t.Error(err)
	}
	f.want(t, f.user, form("Action", "GetFederationToken", "Name", "fed"), "", 200)
}
