package policy_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/policy"
)

// tb is what *testing.T and *rapid.T have in common here.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// naive evaluates a policy's text as IAM documents it, with nothing of the
// package's: it reads the JSON, and matches by trying everything.
type naive struct {
	Version   string
	Statement []struct {
		Effect    string
		Action    texts
		Resource  texts
		Condition map[string]map[string]texts
	}
}

// texts is a string or a list of strings.
type texts []string

func (l *texts) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*l = texts{one}
		return nil
	}
	var many []string
	err := json.Unmarshal(data, &many)
	*l = many
	return err
}

func (l texts) any(match func(string) bool) bool {
	for _, s := range l {
		if match(s) {
			return true
		}
	}
	return false
}

func parse(t tb, text string) naive {
	t.Helper()
	var n naive
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&n); err != nil {
		t.Fatalf("the policy is not JSON: %v\n%s", err, text)
	}
	if n.Version != "2012-10-17" || len(n.Statement) == 0 {
		t.Fatalf("the policy has version %q and %d statements", n.Version, len(n.Statement))
	}
	return n
}

func (n naive) allows(action, resource string, values map[string]string) bool {
	allowed := false
	for _, st := range n.Statement {
		covers := st.Action.any(func(p string) bool { return glob(strings.ToLower(p), strings.ToLower(action)) }) &&
			st.Resource.any(func(p string) bool { return glob(p, resource) })
		for operator, conditions := range st.Condition {
			for name, wanted := range conditions {
				got, present := values[name]
				covers = covers && present && wanted.any(func(want string) bool {
					return operator == "StringLike" && glob(want, got) || operator == "StringEquals" && want == got
				})
			}
		}
		if covers && st.Effect != "Allow" {
			return false
		}
		allowed = allowed || covers
	}
	return allowed
}

// glob is IAM's matching: "*" is any text, "?" any one character.
func glob(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	p, size := utf8.DecodeRuneInString(pattern)
	rest := pattern[size:]
	if p == '*' {
		for i := range len(text) + 1 {
			if glob(rest, text[i:]) {
				return true
			}
		}
		return false
	}
	if text == "" {
		return false
	}
	_, size = utf8.DecodeRuneInString(text)
	return (p == '?' || pattern[:len(pattern)-len(rest)] == text[:size]) && glob(rest, text[size:])
}

// agree checks the package's decision about a document for the bucket of
// scope, and that the naive evaluation of its text comes to the same.
func agree(t tb, d policy.Document, action, key string, want bool) {
	t.Helper()
	got := d.Allows(action, key)
	if got.Allowed != want {
		t.Errorf("Allows(%s, %q) = %+v, want %v\n%s", action, key, got, want, d)
	}
	if got.Reason == "" || got.Allowed != (got.Statement >= 0) {
		t.Errorf("Allows(%s, %q) = %+v explains nothing", action, key, got)
	}
	if naiveAllows(t, d, "provider-backups", action, key) != want {
		t.Errorf("the naive matcher disagrees on %s %q, want %v\n%s", action, key, want, d)
	}
}

// naiveAllows makes the request that S3 would see.
func naiveAllows(t tb, d policy.Document, bucket, action, key string) bool {
	t.Helper()
	is := func(names ...string) bool {
		return texts(names).any(func(name string) bool { return strings.EqualFold(name, action) })
	}
	resource := "arn:aws:s3:::" + bucket
	values := map[string]string{}
	switch {
	case is("s3:ListBucket", "s3:ListBucketVersions"):
		if key != "" {
			values["s3:prefix"] = key
		}
	case is("s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"):
		if key != "" {
			return false // Never asked of a key.
		}
	case is("kms:Decrypt", "kms:GenerateDataKey"):
		if key != "" {
			return false
		}
		resource, values["kms:ViaService"] = testKey, "s3.eu-central-1.amazonaws.com"
	default:
		resource += "/" + key
	}
	return parse(t, d.String()).allows(action, resource, values)
}

func TestAccesses(t *testing.T) {
	const no = "" // No access.
	for _, tc := range []struct {
		action, key string
		// allowed holds the initials of the accesses that allow it: backup,
		// restore, maintain.
		allowed string
	}{
		{"s3:ListBucket", "acme/", "brm"},
		{"s3:ListBucket", "acme/repo/data/", "brm"},
		{"s3:ListBucket", "acme/re", "brm"},
		{"S3:LISTBUCKET", "acme/", "brm"},
		{"s3:ListBucket", "", no},
		{"s3:ListBucket", "acme", no},
		{"s3:ListBucket", "a", no},
		{"s3:ListBucket", "acme2/", no},
		{"s3:ListBucket", "other/acme/", no},
		{"s3:GetBucketLocation", "", "brm"},
		{"s3:GetBucketLocation", "acme/x", no},
		{"s3:GetObject", "acme/x", "brm"},
		{"s3:GetObject", "acme/", "brm"},
		{"s3:GetObject", "acme", no},
		{"s3:GetObject", "acme2/x", no},
		{"s3:GetObject", "ACME/x", no},
		{"s3:GetObject", "", no},
		{"s3:GetObjectVersion", "acme/x", no},
		{"s3:PutObject", "acme/x", "bm"},
		{"s3:PutObject", "acme2/x", no},
		{"s3:AbortMultipartUpload", "acme/x", "bm"},
		{"s3:ListMultipartUploadParts", "acme/x", "bm"},
		{"s3:ListBucketMultipartUploads", "", no},
		{"s3:ListBucketVersions", "acme/", no},
		{"s3:PutObjectAcl", "acme/x", no},
		{"s3:PutObjectRetention", "acme/x", no},
		{"s3:BypassGovernanceRetention", "acme/x", no},
		// Locks, at the prefix and in repositories below it.
		{"s3:DeleteObject", "acme/locks/0a1b", "bm"},
		{"s3:DeleteObject", "acme/repo1/locks/0a1b", "bm"},
		{"s3:DeleteObject", "acme/host/repo1/locks/0a1b", "bm"},
		{"s3:DeleteObject", "acme/data/00/0a1b", "m"},
		{"s3:DeleteObject", "acme/snapshots/0a1b", "m"},
		{"s3:DeleteObject", "acme/keys/0a1b", "m"},
		{"s3:DeleteObject", "acme/index/0a1b", "m"},
		{"s3:DeleteObject", "acme/config", "m"},
		{"s3:DeleteObject", "acme/locks", "m"},
		{"s3:DeleteObject", "acme/padlocks/x", "m"},
		{"s3:DeleteObject", "acme/repo1/padlocks/x", "m"},
		{"s3:DeleteObject", "acme/repo1/locksmith/x", "m"},
		{"s3:DeleteObject", "acme2/locks/0a1b", no},
		{"s3:DeleteObject", "locks/acme/x", no},
		{"s3:DeleteObjectVersion", "acme/locks/0a1b", no},
		// The key.
		{"kms:Decrypt", "", "brm"},
		{"kms:Decrypt", "acme/x", no},
		{"kms:GenerateDataKey", "", "bm"},
		{"kms:Encrypt", "", no},
		{"kms:CreateGrant", "", no},
		// Nothing else.
		{"s3:PutBucketPolicy", "", no},
		{"iam:CreateUser", "", no},
		{"*", "acme/x", no},
		{"", "", no},
	} {
		for _, access := range []policy.Access{policy.AccessBackup, policy.AccessRestore, policy.AccessMaintain} {
			t.Run(string(access)+" "+tc.action+" "+tc.key, func(t *testing.T) {
				d := build(t, scope(access, testKey))
				agree(t, d, tc.action, tc.key, strings.Contains(tc.allowed, string(access[:1])))
			})
		}
	}
}

// TestKeyIsUsedThroughS3Only: the text itself must say so, since Allows judges
// S3's calls alone.
func TestKeyIsUsedThroughS3Only(t *testing.T) {
	n := parse(t, build(t, scope(policy.AccessBackup, testKey)).String())
	for _, via := range []map[string]string{
		{},
		{"kms:ViaService": "ec2.eu-central-1.amazonaws.com"},
		{"kms:ViaService": "s3.eu-west-1.amazonaws.com"},
	} {
		if n.allows("kms:Decrypt", testKey, via) {
			t.Errorf("the key can be used with %v", via)
		}
	}
	if other := strings.Replace(testKey, "1234abcd", "ffffffff", 1); n.allows("kms:Decrypt", other, map[string]string{"kms:ViaService": "s3.eu-central-1.amazonaws.com"}) {
		t.Error("another key can be used")
	}
}

// TestOtherBuckets: keys of the same name elsewhere stay closed.
func TestOtherBuckets(t *testing.T) {
	for _, access := range []policy.Access{policy.AccessBackup, policy.AccessRestore, policy.AccessMaintain} {
		d := build(t, scope(access, ""))
		for _, bucket := range []string{"provider-backups2", "provider-backup", "rovider-backups", "other"} {
			for _, action := range policy.Actions() {
				for _, key := range []string{"", "acme/x", "acme/locks/x"} {
					if naiveAllows(t, d, bucket, action, key) {
						t.Errorf("%s access allows %s on %q in %s", access, action, key, bucket)
					}
				}
			}
		}
	}
}

func TestReasonsReadWell(t *testing.T) {
	d := build(t, scope(policy.AccessBackup, testKey))
	for _, tc := range []struct{ action, key, want string }{
		{"s3:ListBucket", "acme/x", `allowed to list the keys that begin with "acme/"`},
		{"s3:DeleteObject", "acme/repo/locks/x", `allowed to delete lock files: what is in a directory locks/ under "acme/"`},
		{"s3:DeleteObject", "acme/config", `s3:DeleteObject is allowed, but not for "acme/config"`},
		{"s3:ListBucket", "", `s3:ListBucket is allowed, but not without a prefix`},
		{"s3:PutObject", "", "s3:PutObject is asked of an object; give its key"},
		{"s3:GetBucketLocation", "acme/x", "s3:GetBucketLocation is not asked of a key; leave the key out"},
		{"s3:PutObjectAcl", "acme/x", `no statement names "s3:PutObjectAcl"`},
		{"kms:Decrypt", "", "allowed to use the bucket's KMS key, through S3 only"},
	} {
		if got := d.Allows(tc.action, tc.key).Reason; got != tc.want {
			t.Errorf("Allows(%s, %q).Reason = %q, want %q", tc.action, tc.key, got, tc.want)
		}
	}
}
