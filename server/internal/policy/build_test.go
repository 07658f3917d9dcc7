package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/server/internal/policy"
)

const testKey = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// scope is the grant of the examples in docs/policies.md.
func scope(access policy.Access, key string) policy.Scope {
	s := policy.Scope{Bucket: "provider-backups", Prefix: "acme/", Access: access, KMSKeyARN: key, Region: "eu-central-1"}
	if access == policy.AccessActions {
		s.Actions = []string{"s3:GetObjectVersion", "s3:ListBucketVersions"}
	}
	return s
}

func build(t *testing.T, s policy.Scope) policy.Document {
	t.Helper()
	d, err := policy.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestGoldenDocuments pins each document byte for byte: a change here changes
// the policy hash of every credential, and what tenants can do.
func TestGoldenDocuments(t *testing.T) {
	const (
		head     = `{"Version":"2012-10-17","Statement":[`
		list     = `{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::provider-backups","Condition":{"StringLike":{"s3:prefix":"acme/*"}}},`
		location = `{"Effect":"Allow","Action":"s3:GetBucketLocation","Resource":"arn:aws:s3:::provider-backups"},`
		locks    = `,{"Effect":"Allow","Action":"s3:DeleteObject","Resource":["arn:aws:s3:::provider-backups/acme/locks/*","arn:aws:s3:::provider-backups/acme/*/locks/*"]}`
		via      = `"Resource":"` + testKey + `","Condition":{"StringEquals":{"kms:ViaService":"s3.eu-central-1.amazonaws.com"}}}`
		readKey  = `,{"Effect":"Allow","Action":"kms:Decrypt",` + via
		writeKey = `,{"Effect":"Allow","Action":["kms:Decrypt","kms:GenerateDataKey"],` + via
		tail     = `]}`
	)
	objects := func(actions string) string {
		return `{"Effect":"Allow","Action":` + actions + `,"Resource":"arn:aws:s3:::provider-backups/acme/*"}`
	}
	backup := head + list + location +
		objects(`["s3:GetObject","s3:PutObject","s3:AbortMultipartUpload","s3:ListMultipartUploadParts"]`) + locks
	restore := head + list + location + objects(`"s3:GetObject"`)
	maintain := head + list + location +
		objects(`["s3:GetObject","s3:PutObject","s3:AbortMultipartUpload","s3:ListMultipartUploadParts","s3:DeleteObject"]`)
	versions := head + strings.ReplaceAll(list, "s3:ListBucket", "s3:ListBucketVersions") + objects(`"s3:GetObjectVersion"`)

	for _, tc := range []struct {
		access policy.Access
		key    string
		want   string
	}{
		{policy.AccessBackup, "", backup + tail},
		{policy.AccessBackup, testKey, backup + writeKey + tail},
		{policy.AccessRestore, "", restore + tail},
		{policy.AccessRestore, testKey, restore + readKey + tail},
		{policy.AccessMaintain, "", maintain + tail},
		{policy.AccessMaintain, testKey, maintain + writeKey + tail},
		{policy.AccessActions, "", versions + tail},
		{policy.AccessActions, testKey, versions + readKey + tail},
	} {
		t.Run(string(tc.access)+strings.Repeat(" with a key", min(1, len(tc.key))), func(t *testing.T) {
			d := build(t, scope(tc.access, tc.key))
			if diff := cmp.Diff(tc.want, d.String()); diff != "" {
				t.Errorf("the policy differs (-want +got):\n%s", diff)
			}
			if d.Length() != len(tc.want) {
				t.Errorf("Length() = %d, want %d", d.Length(), len(tc.want))
			}
		})
	}
}

// TestTextIsRaw: characters that JSON need not escape are not, because each
// escape takes six of the 2,048 characters.
func TestTextIsRaw(t *testing.T) {
	s := scope(policy.AccessRestore, "")
	s.Prefix = `<é>&'"/`
	want := `"Resource":"arn:aws:s3:::provider-backups/<é>&'\"/*"`
	if d := build(t, s); !strings.Contains(d.String(), want) {
		t.Errorf("no %s in %s", want, d)
	}
}

func TestHash(t *testing.T) {
	const want = "5f715a34df57e1c7283a83f381dd11c003c555c5b3273dd47b9ae85eb6fd3ce0"
	d := build(t, scope(policy.AccessBackup, ""))
	if got := d.Hash(); got != want {
		t.Errorf("Hash() = %s, want %s", got, want)
	}
	if other := build(t, scope(policy.AccessRestore, "")); other.Hash() == d.Hash() {
		t.Error("different policies have the same hash")
	}
}

func TestPartitions(t *testing.T) {
	for _, tc := range []struct {
		partition, region string
		wantVia           string
	}{
		{"", "eu-west-1", `"kms:ViaService":"s3.eu-west-1.amazonaws.com"`},
		{"aws", "eu-west-1", `"kms:ViaService":"s3.eu-west-1.amazonaws.com"`},
		{"aws-us-gov", "us-gov-west-1", `"kms:ViaService":"s3.us-gov-west-1.amazonaws.com"`},
		{"aws-cn", "cn-north-1", `"kms:ViaService":["s3.cn-north-1.amazonaws.com","s3.cn-north-1.amazonaws.com.cn"]`},
	} {
		t.Run(tc.partition, func(t *testing.T) {
			name := tc.partition
			if name == "" {
				name = "aws"
			}
			s := scope(policy.AccessMaintain, "arn:"+name+":kms:"+tc.region+":111122223333:key/mrk-1234")
			s.Partition, s.Region = tc.partition, tc.region
			d := build(t, s)
			if !strings.Contains(d.String(), tc.wantVia) {
				t.Errorf("no %s in %s", tc.wantVia, d)
			}
			if !strings.Contains(d.String(), `"arn:`+name+`:s3:::provider-backups/acme/*"`) {
				t.Errorf("no object ARN of partition %s in %s", name, d)
			}
			if !d.Allows("kms:GenerateDataKey", "").Allowed {
				t.Error("the key cannot be used through S3")
			}
		})
	}
}

// TestKeyUseFollowsActions: a key is opened only as far as the actions need it.
func TestKeyUseFollowsActions(t *testing.T) {
	for _, tc := range []struct {
		action string
		want   []string
	}{
		{"s3:ListBucket", nil},
		{"s3:DeleteObject", nil},
		{"s3:GetObject", []string{"kms:Decrypt"}},
		{"s3:PutObject", []string{"kms:Decrypt", "kms:GenerateDataKey"}},
	} {
		t.Run(tc.action, func(t *testing.T) {
			s := scope(policy.AccessActions, testKey)
			s.Actions = []string{tc.action}
			var got []string
			for _, st := range build(t, s).Statements() {
				for _, a := range st.Actions {
					if strings.HasPrefix(a, "kms:") {
						got = append(got, a)
					}
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("key actions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOrderOfActionsDoesNotMatter(t *testing.T) {
	s := scope(policy.AccessActions, testKey)
	s.Actions = policy.Actions()
	want := build(t, s)
	slices.Reverse(s.Actions)
	if got := build(t, s); got.Hash() != want.Hash() {
		t.Errorf("the order of the list changes the policy:\n%s\n%s", want, got)
	}
	if s.Actions[0] == policy.Actions()[0] {
		t.Error("Build reordered the caller's list")
	}
}

// TestLongestScopesFit keeps the promise of MaxPrefixLength.
func TestLongestScopesFit(t *testing.T) {
	for _, partition := range []string{"aws", "aws-cn", "aws-us-gov"} {
		for _, access := range []policy.Access{policy.AccessBackup, policy.AccessRestore, policy.AccessMaintain, policy.AccessActions} {
			s := policy.Scope{
				Partition: partition,
				Bucket:    strings.Repeat("b", 63),
				Prefix:    strings.Repeat("p", policy.MaxPrefixLength-1) + "/",
				Access:    access,
				KMSKeyARN: "arn:" + partition + ":kms:" + strings.Repeat("r", 32) + ":111122223333:key/" + strings.Repeat("k", 64),
			}
			if access == policy.AccessActions {
				s.Actions = policy.Actions()
			}
			t.Logf("%s %s: %d characters", partition, access, build(t, s).Length())
		}
	}
}

func TestTooLongIsRefused(t *testing.T) {
	s := scope(policy.AccessBackup, testKey)
	s.Bucket = strings.Repeat("b", 63)
	s.Prefix = strings.Repeat(`"`, policy.MaxPrefixLength-1) + "/"
	d, err := policy.Build(s)
	var length *policy.LengthError
	if !errors.As(err, &length) {
		t.Fatalf("Build() error = %v, want a *LengthError", err)
	}
	if length.Length <= policy.MaxDocumentLength || length.Max != policy.MaxDocumentLength {
		t.Errorf("LengthError = %+v", length)
	}
	if !strings.Contains(err.Error(), "2048") || !strings.Contains(err.Error(), "shorter prefix") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	if !d.IsZero() {
		t.Error("a document came with the error")
	}
}

// TestLengthCountsCharacters: STS counts characters, not bytes of UTF-8.
func TestLengthCountsCharacters(t *testing.T) {
	s := scope(policy.AccessRestore, "")
	s.Prefix = "é/"
	d := build(t, s)
	if want := utf8.RuneCountInString(d.String()); d.Length() != want || want == len(d.String()) {
		t.Errorf("Length() = %d, want %d characters of %d bytes", d.Length(), want, len(d.String()))
	}
}

func TestZeroDocumentIsNoPolicy(t *testing.T) {
	var d policy.Document
	if !d.IsZero() {
		t.Error("the zero document takes itself for a policy")
	}
	if d.Hash() != "" || d.Length() != 0 || len(d.Statements()) != 0 {
		t.Error("the zero document has a hash, a length or statements")
	}
	// Empty would mean "no policy" to AssumeRole: the whole role. JSON might be
	// taken for a policy.
	if text := d.String(); text == "" || strings.ContainsAny(text[:1], "{[\"") {
		t.Errorf("an STS might take the zero document's text %q", text)
	}
	if got := d.Allows("s3:GetObject", "acme/x"); got.Allowed || got.Statement != -1 || got.Reason == "" {
		t.Errorf("the zero document decides %+v", got)
	}
}

func TestStatementsAreCopies(t *testing.T) {
	d := build(t, scope(policy.AccessBackup, testKey))
	for _, st := range d.Statements() {
		if st.Purpose == "" {
			t.Errorf("statement %v has no purpose", st.Actions)
		}
		st.Actions[0], st.Resources[0] = "s3:*", "*"
		if len(st.Condition.Values) > 0 {
			st.Condition.Values[0] = "*"
		}
	}
	if d.Allows("s3:GetObject", "other/x").Allowed || d.Allows("s3:ListBucket", "other/").Allowed {
		t.Error("a caller changed the document through Statements")
	}
}
