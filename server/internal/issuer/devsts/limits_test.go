package devsts

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func wantCode(t *testing.T, what string, err error, code string, status int) {
	t.Helper()
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
		return
	}
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || response.HTTPStatusCode() != status {
		t.Errorf("%s: got %v, want HTTP %d", what, err, status)
	}
}

// incompressible is a valid policy that packs badly.
func incompressible(chars int) string {
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	head := `{"Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::`
	tail := `"}]}`
	var name strings.Builder
	for range chars - len(head) - len(tail) {
		name.WriteByte(alphabet[random.IntN(len(alphabet))])
	}
	return head + name.String() + tail
}

func manyTags(n, keyChars, valueChars int) url.Values {
	v := url.Values{}
	for i := 1; i <= n; i++ {
		key := fmt.Sprintf("%d", i)
		v.Set(fmt.Sprintf("Tags.member.%d.Key", i), key+strings.Repeat("k", keyChars-len(key)))
		v.Set(fmt.Sprintf("Tags.member.%d.Value", i), strings.Repeat("v", valueChars))
	}
	return v
}

// parameterCases are for both issuing operations.
var parameterCases = []struct {
	name   string
	set    url.Values
	code   string
	status int
}{
	{"shortest duration", url.Values{"DurationSeconds": {"900"}}, "", 200},
	{"duration below", url.Values{"DurationSeconds": {"899"}}, "ValidationError", 400},
	{"duration negative", url.Values{"DurationSeconds": {"-900"}}, "ValidationError", 400},
	{"duration over 36 hours", url.Values{"DurationSeconds": {"129601"}}, "ValidationError", 400},
	{"duration not a number", url.Values{"DurationSeconds": {"1h"}}, "MalformedInput", 400},
	{"duration over 32 bits", url.Values{"DurationSeconds": {"99999999999"}}, "MalformedInput", 400},
	{"duration empty", url.Values{"DurationSeconds": {""}}, "MalformedInput", 400},
	{"policy empty", url.Values{"Policy": {""}}, "ValidationError", 400},
	{"policy of 2048", url.Values{"Policy": {policy + strings.Repeat(" ", 2048-len(policy))}}, "", 200},
	{"policy of 2049", url.Values{"Policy": {policy + strings.Repeat(" ", 2049-len(policy))}}, "ValidationError", 400},
	{"policy with U+0100", url.Values{"Policy": {strings.Replace(policy, "p/", "\u0100/", 1)}}, "ValidationError", 400},
	{"policy with U+00FF", url.Values{"Policy": {strings.Replace(policy, "p/", "\u00ff/", 1)}}, "", 200},
	{"policy with NUL", url.Values{"Policy": {strings.Replace(policy, "p/", "\x00/", 1)}}, "ValidationError", 400},
	{"policy of bad UTF-8", url.Values{"Policy": {strings.Replace(policy, "p/", "\xff/", 1)}}, "ValidationError", 400},
	{"policy no JSON", url.Values{"Policy": {"allow everything"}}, "MalformedPolicyDocument", 400},
	{"policy that packs badly", url.Values{"Policy": {incompressible(2048)}}, "PackedPolicyTooLarge", 400},
	{"50 tags", manyTags(50, 3, 3), "", 200},
	{"51 tags", manyTags(51, 3, 3), "ValidationError", 400},
	{"longest tag", manyTags(1, 128, 256), "", 200},
	{"tag key of 129", manyTags(1, 129, 1), "ValidationError", 400},
	{"tag value of 257", manyTags(1, 1, 257), "ValidationError", 400},
	{"tag without key", url.Values{"Tags.member.1.Value": {"v"}}, "ValidationError", 400},
	{"tag without value", url.Values{"Tags.member.1.Key": {"k"}}, "ValidationError", 400},
	{"tag key with odd characters", url.Values{"Tags.member.1.Key": {"k*"}, "Tags.member.1.Value": {"v"}}, "ValidationError", 400},
	{"tag value with odd characters", url.Values{"Tags.member.1.Key": {"k"}, "Tags.member.1.Value": {"${x}"}}, "ValidationError", 400},
	{"reserved tag", url.Values{"Tags.member.1.Key": {"AWS:x"}, "Tags.member.1.Value": {"v"}}, "ValidationError", 400},
	{"tag twice", url.Values{"Tags.member.1.Key": {"k"}, "Tags.member.1.Value": {"v"}, "Tags.member.2.Key": {"K"}, "Tags.member.2.Value": {"v"}}, "InvalidParameterValue", 400},
	{"tags as text", url.Values{"Tags": {"k=v"}}, "MalformedInput", 400},
	{"empty list of tags", url.Values{"Tags": {""}}, "", 200},
	{"member 0", url.Values{"Tags.member.0.Key": {"k"}}, "MalformedInput", 400},
	{"member 01", url.Values{"Tags.member.01.Key": {"k"}}, "MalformedInput", 400},
	{"member 1001", url.Values{"Tags.member.1001.Key": {"k"}}, "MalformedInput", 400},
	{"unknown part of a tag", url.Values{"Tags.member.1.Key": {"k"}, "Tags.member.1.Value": {"v"}, "Tags.member.1.Color": {"red"}}, "InvalidQueryParameter", 400},
	{"unknown parameter", url.Values{"TokenCode": {"123456"}}, "InvalidQueryParameter", 400},
	{"managed policy", url.Values{"PolicyArns.member.1.arn": {"arn:aws:iam::aws:policy/AdministratorAccess"}}, "InvalidParameterValue", 400},
	{"token size over", url.Values{"MinimumSessionTokenSize": {"4097"}}, "ValidationError", 400},
	{"token size no number", url.Values{"MinimumSessionTokenSize": {"big"}}, "MalformedInput", 400},
}

func TestParameterLimits(t *testing.T) {
	f := start(t)
	for action, base := range map[string]url.Values{
		"GetFederationToken": form("Action", "GetFederationToken", "Name", "fed", "Policy", policy),
		"AssumeRole":         form("Action", "AssumeRole", "RoleArn", roleARN, "RoleSessionName", "session", "Policy", policy),
	} {
		for _, c := range parameterCases {
			t.Run(action+"/"+c.name, func(t *testing.T) {
				all := maps.Clone(base)
				maps.Copy(all, c.set)
				f.want(t, f.user, all, c.code, c.status)
			})
		}
	}
}

// want makes the call and checks how it is answered, in AWS's form.
func (f *fixture) want(t *testing.T, user User, parameters url.Values, code string, status int) {
	t.Helper()
	a := f.call(t, user, parameters)
	if a.status != status || a.Code != code {
		t.Fatalf("got %d %s, want %d %s\n%s", a.status, a.Code, status, code, a.body)
	}
	if a.header.Get("Content-Type") != "text/xml" || a.header.Get("X-Amzn-Requestid") == "" {
		t.Errorf("headers are %v", a.header)
	}
	if code != "" && (a.Type != "Sender" || a.Text == "" || a.ID != a.header.Get("X-Amzn-Requestid")) {
		t.Errorf("the error has not AWS's form: %+v", a)
	}
}

func TestOperationLimits(t *testing.T) {
	f := start(t)
	federation := func(pairs ...string) url.Values {
		return form(append([]string{"Action", "GetFederationToken", "Name", "fed"}, pairs...)...)
	}
	assume := func(pairs ...string) url.Values {
		return form(append([]string{"Action", "AssumeRole", "RoleArn", roleARN, "RoleSessionName", "session"}, pairs...)...)
	}
	without := func(v url.Values, name string) url.Values { v.Del(name); return v }
	long := "arn:aws:iam::000000000000:role/long"
	for _, c := range []struct {
		name   string
		v      url.Values
		code   string
		status int
	}{
		{"no name", without(federation(), "Name"), "ValidationError", 400},
		{"name of 1", federation("Name", "a"), "ValidationError", 400},
		{"name of 32", federation("Name", strings.Repeat("a", 32)), "", 200},
		{"name of 33", federation("Name", strings.Repeat("a", 33)), "ValidationError", 400},
		{"name with a slash", federation("Name", "a/b"), "ValidationError", 400},
		{"name with a line break", federation("Name", "ab\n"), "ValidationError", 400},
		{"federation of 36 hours", federation("DurationSeconds", "129600"), "", 200},
		{"federation with a role", federation("RoleArn", roleARN), "InvalidQueryParameter", 400},
		{"no session name", without(assume(), "RoleSessionName"), "ValidationError", 400},
		{"session name of 64", assume("RoleSessionName", strings.Repeat("a", 64)), "", 200},
		{"session name of 65", assume("RoleSessionName", strings.Repeat("a", 65)), "ValidationError", 400},
		{"session name not ASCII", assume("RoleSessionName", "änne"), "ValidationError", 400},
		{"no role", without(assume(), "RoleArn"), "ValidationError", 400},
		{"short role ARN", assume("RoleArn", "arn:aws:iam"), "ValidationError", 400},
		{"unknown role", assume("RoleArn", "arn:aws:iam::000000000000:role/nobody"), "AccessDenied", 403},
		{"role of another account", assume("RoleArn", "arn:aws:iam::111111111111:role/backup"), "AccessDenied", 403},
		{"role that trusts others", assume("RoleArn", "arn:aws:iam::000000000000:role/private"), "AccessDenied", 403},
		{"external id missing", assume("RoleArn", "arn:aws:iam::000000000000:role/guarded"), "AccessDenied", 403},
		{"external id wrong", assume("RoleArn", "arn:aws:iam::000000000000:role/guarded", "ExternalId", "another"), "AccessDenied", 403},
		{"external id right", assume("RoleArn", "arn:aws:iam::000000000000:role/guarded", "ExternalId", "the-customer"), "", 200},
		{"external id short", assume("ExternalId", "x"), "ValidationError", 400},
		{"external id with spaces", assume("ExternalId", "x y"), "ValidationError", 400},
		{"over the role's maximum", assume("DurationSeconds", "3601"), "ValidationError", 400},
		{"12 hours", assume("RoleArn", long, "DurationSeconds", "43200"), "", 200},
		{"over 12 hours", assume("RoleArn", long, "DurationSeconds", "43201"), "ValidationError", 400},
		{"source identity short", assume("SourceIdentity", "x"), "ValidationError", 400},
		{"transitive tag that is none", assume("TransitiveTagKeys.member.1", "tenant"), "InvalidParameterValue", 400},
		{"no action", form(), "MissingAction", 400},
		{"unknown action", form("Action", "GetSessionToken"), "InvalidAction", 400},
		{"no version", without(federation(), "Version"), "InvalidAction", 400},
		{"another version", federation("Version", "2010-05-08"), "InvalidAction", 400},
		{"identity with a parameter", form("Action", "GetCallerIdentity", "Name", "x"), "InvalidQueryParameter", 400},
	} {
		t.Run(c.name, func(t *testing.T) { f.want(t, f.user, c.v, c.code, c.status) })
	}
	if f.Calls()["unknown"] != 2 {
		t.Errorf("calls are %v", f.Calls())
	}
}

// TestViolationsAreReportedTogether: as AWS does, in one error.
func TestViolationsAreReportedTogether(t *testing.T) {
	f := start(t)
	a := f.call(t, f.user, form("Action", "AssumeRole", "RoleArn", "x", "RoleSessionName", "a/", "DurationSeconds", "1"))
	want := "3 validation errors detected: Value 'x' at 'roleArn' failed to satisfy constraint: Member must have length greater than or equal to 20; " +
		"Value 'a/' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*; " +
		"Value '1' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"
	if a.Text != want {
		t.Errorf("got  %s\nwant %s", a.Text, want)
	}
}

// TestErrorsDecodeToTheSDKsTypes: the SDK knows these codes by type, so it
// must find them.
func TestErrorsDecodeToTheSDKsTypes(t *testing.T) {
	f := start(t)
	issue := func(policy string) []error {
		_, federation := f.client(f.user).GetFederationToken(t.Context(), &sts.GetFederationTokenInput{Name: aws.String("fed"), Policy: aws.String(policy)})
		_, assume := f.client(f.user).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("session"), Policy: aws.String(policy)})
		return []error{federation, assume}
	}
	for _, err := range issue("{}") {
		if e, ok := errors.AsType[*types.MalformedPolicyDocumentException](err); !ok || e.ErrorMessage() == "" {
			t.Errorf("got %v", err)
		}
		wantCode(t, "malformed", err, "MalformedPolicyDocument", http.StatusBadRequest)
	}
	for _, err := range issue(incompressible(2000)) {
		if e, ok := errors.AsType[*types.PackedPolicyTooLargeException](err); !ok || !strings.Contains(e.ErrorMessage(), "% of allotted space") {
			t.Errorf("got %v", err)
		}
		wantCode(t, "packed", err, "PackedPolicyTooLarge", http.StatusBadRequest)
	}
}

func TestPolicyGrammar(t *testing.T) {
	const statement = `{"Effect":"Allow","Action":"s3:*","Resource":"*"}`
	for _, good := range []string{
		policy,
		`{"Statement":` + statement + `}`,
		`{"Version":"2008-10-17","Id":"x","Statement":[` + statement + `]}`,
		`{"Statement":{"Sid":"x","Effect":"Deny","NotAction":["s3:*","*"],"NotResource":["arn:aws:s3:::b"]}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":["p/*"]},"Bool":{"aws:SecureTransport":true},"NumericLessThan":{"s3:max-keys":5}}}}`,
	} {
		if err := checkPolicy(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"Statement":[]}`, `{"Statement":null}`, `{"Statement":[null]}`, `{"Statement":"x"}`,
		`{"Statement":` + statement, `{"Statement":` + statement + `}}`, `{"Statement":` + statement + `} x`,
		`{"statement":` + statement + `}`, `{"Statement":` + statement + `,"Statement":` + statement + `}`,
		`{"Version":"2011","Statement":` + statement + `}`, `{"Version":2012,"Statement":` + statement + `}`,
		`{"Statement":` + statement + `,"Extra":1}`,
		`{"Statement":{"Action":"s3:*","Resource":"*"}}`,
		`{"Statement":{"Effect":"allow","Action":"s3:*","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":[1],"Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"GetObject","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"bucket"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","NotAction":"s3:*","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Principal":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Color":"red"}}`,
		`{"Statement":{"Effect":"Allow","Effect":"Deny","Action":"s3:*","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":"x"}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":"x"}}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":{}}}}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":null}}}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":"a","s3:prefix":"b"}}}}`,
	} {
		if err := checkPolicy(bad); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}

func TestPackedSizeGrowsWithPolicyAndTags(t *testing.T) {
	f := start(t)
	small, err := f.packedSize(policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	more, err := f.packedSize(policy, []Tag{{"tenant", "acme"}, {"agent", "0198c2d0-7b1e-7cc4-9d5e-51d6f4a3c1aa"}})
	if err != nil || more <= small {
		t.Errorf("%d %% without tags, %d %% with (%v)", small, more, err)
	}
	if none, err := f.packedSize("", nil); none != 0 || err != nil {
		t.Errorf("nothing takes %d %% (%v)", none, err)
	}
}
