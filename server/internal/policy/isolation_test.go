package policy_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/stokerd/stoker/server/internal/policy"
)

var accesses = []policy.Access{policy.AccessBackup, policy.AccessRestore, policy.AccessMaintain, policy.AccessActions}

// asked are actions to probe with: all that a policy can hold, and some that
// none must.
var asked = append(policy.Actions(),
	"s3:ListBucketMultipartUploads", "s3:ListAllMyBuckets", "s3:PutObjectAcl", "s3:PutBucketPolicy",
	"s3:BypassGovernanceRetention", "s3:DeleteBucket", "s3:*", "*", "iam:PassRole",
	"kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey")

// drawPrefix draws valid prefixes, close enough to each other to collide and
// full of what is odd and yet allowed.
func drawPrefix(name string) *rapid.Generator[string] {
	segment := rapid.OneOf(
		rapid.SampledFrom([]string{"a", "b", "ab", "aa", "locks", "data", "a b", "ä", `a"b`, "a'b", "<a>", "a&b", "%2e", "...", "-"}),
		rapid.StringOfN(rapid.RuneFrom([]rune(`ab.-_ "'<>&%:,;+=@~|()#!ÿé¡`)), 1, 8, 20),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, name), "/") + "/"
	}).Filter(func(p string) bool { return policy.ValidatePrefix(p) == nil })
}

// drawScope draws a grant of prefix with any access.
func drawScope(t *rapid.T, prefix string) policy.Scope {
	s := policy.Scope{
		Bucket:    "provider-backups",
		Prefix:    prefix,
		Access:    rapid.SampledFrom(accesses).Draw(t, "access"),
		KMSKeyARN: rapid.SampledFrom([]string{"", testKey}).Draw(t, "key"),
	}
	if s.Access == policy.AccessActions {
		s.Actions = rapid.SliceOfNDistinct(rapid.SampledFrom(policy.Actions()), 1, -1, rapid.ID).Draw(t, "actions")
	}
	return s
}

// drawTail draws the rest of a key under a prefix, with all that could mislead
// a matcher.
var drawTail = rapid.OneOf(
	rapid.SampledFrom([]string{"", "x", "locks/x", "repo/locks/x", "a/", "*", "?", "*/*", "${aws:username}", "../a/x", "a/locks/a/x"}),
	rapid.String(),
)

// TestForeignPrefixesStayClosed is the promise of the package: for tenants A
// and B whose prefixes do not nest, no policy of A allows anything on a key of
// B, listing included.
func TestForeignPrefixesStayClosed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPrefix("A").Draw(t, "A"), drawPrefix("B").Draw(t, "B")
		if policy.Overlap(a, b) {
			t.Skip("the prefixes nest")
		}
		d, err := policy.Build(drawScope(t, a))
		if err != nil {
			t.Fatal(err)
		}
		key := b + drawTail.Draw(t, "tail")
		for _, action := range asked {
			agree(t, d, action, key, false)
		}
		// Nor may A list anything that shows keys of B: a prefix of B's prefix.
		for i := range len(b) + 1 {
			agree(t, d, "s3:ListBucket", b[:i], false)
			agree(t, d, "s3:ListBucketVersions", b[:i], false)
		}
	})
}

// TestOwnPrefixIsOpen: what is granted works, however odd the key.
func TestOwnPrefixIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := drawPrefix("prefix").Draw(t, "prefix")
		s := drawScope(t, prefix)
		d, err := policy.Build(s)
		if err != nil {
			t.Fatal(err)
		}
		checkText(t, d)
		key := prefix + drawTail.Draw(t, "tail")
		for _, action := range granted(s) {
			if strings.Contains(action, "Bucket") && !strings.HasPrefix(action, "s3:List") {
				key = ""
			}
			agree(t, d, action, key, true)
			key = prefix
		}
	})
}

// granted repeats, in words of the tests, what each access allows.
func granted(s policy.Scope) []string {
	restore := []string{"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"}
	backup := append(slices.Clone(restore), "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
	switch s.Access {
	case policy.AccessRestore:
		return restore
	case policy.AccessBackup:
		return backup
	case policy.AccessMaintain:
		return append(backup, "s3:DeleteObject")
	default:
		return s.Actions
	}
}

// TestSiblings: "a/" never opens "ab/", the hole that a missing slash makes.
func TestSiblings(t *testing.T) {
	for _, access := range accesses {
		s := scope(access, testKey)
		s.Prefix = "a/"
		if access == policy.AccessActions {
			s.Actions = policy.Actions()
		}
		d := build(t, s)
		for _, key := range []string{"a", "ab", "ab/", "ab/x", "ab/locks/x", "aa/", "a./", "a /x", "A/x", "/a/x", "b/a/x", "á/x"} {
			for _, action := range asked {
				agree(t, d, action, key, false)
			}
		}
	}
}

// checkText checks what every policy's text must be, however it was made.
func checkText(t tb, d policy.Document) {
	t.Helper()
	text := d.String()
	if d.IsZero() || text == "" {
		t.Fatalf("Build gave an empty policy and no error")
	}
	if n := utf8.RuneCountInString(text); n > policy.MaxDocumentLength || n != d.Length() {
		t.Errorf("the policy has %d characters, Length() says %d", n, d.Length())
	}
	for _, r := range text {
		if r < ' ' || r > 0xff {
			t.Errorf("the policy holds %q, which STS does not take", r)
		}
	}
	for _, st := range parse(t, text).Statement {
		if st.Effect != "Allow" || len(st.Action) == 0 || len(st.Resource) == 0 {
			t.Errorf("statement %+v is not a plain allow", st)
		}
		for _, action := range st.Action {
			if strings.ContainsAny(action, "*?$") {
				t.Errorf("the policy allows the actions %q", action)
			}
		}
		for _, conditions := range st.Condition {
			for _, values := range conditions {
				st.Resource = append(st.Resource, values...)
			}
		}
		for _, pattern := range st.Resource {
			// Only these two stars are Build's own.
			fixed := strings.TrimSuffix(pattern, "/*")
			fixed = strings.TrimSuffix(fixed, "/*/locks")
			if strings.ContainsAny(fixed, "*?$[]{}\\") {
				t.Errorf("the pattern %q has a live character that Build did not put there", pattern)
			}
		}
	}
}

// FuzzBuild throws arbitrary text at every field. Whatever Build accepts must
// open nothing but its bucket and prefix, by two matchers that share no code.
func FuzzBuild(f *testing.F) {
	for _, tc := range hostilePrefixes {
		if len(tc.prefix) < 1000 {
			f.Add("provider-backups", tc.prefix, uint8(0), uint32(0), testKey, "acme/x")
		}
	}
	for i := range accesses {
		f.Add("provider-backups", "acme/", uint8(i), ^uint32(0), testKey, "acme/repo/locks/x")
		f.Add("b*", `quo"ted/ä/`, uint8(i), uint32(1), "arn:aws:kms:*:111122223333:key/*", "acme2/x")
		f.Add("my.bucket", "locks/", uint8(i), uint32(7), "", "locks/locks/")
	}
	f.Fuzz(func(t *testing.T, bucket, prefix string, access uint8, chosen uint32, keyARN, key string) {
		s := policy.Scope{Bucket: bucket, Prefix: prefix, Access: accesses[int(access)%len(accesses)], KMSKeyARN: keyARN}
		if s.Access == policy.AccessActions {
			for i, name := range policy.Actions() {
				if chosen&(1<<i) != 0 {
					s.Actions = append(s.Actions, name)
				}
			}
		}
		d, err := policy.Build(s)
		if err != nil {
			if !d.IsZero() {
				t.Fatalf("a document came with %v", err)
			}
			return
		}
		checkText(t, d)
		inside := strings.HasPrefix(key, prefix)
		for _, action := range asked {
			got := d.Allows(action, key)
			if got.Allowed && key != "" && !inside {
				t.Errorf("%s on %q is allowed outside %q", action, key, prefix)
			}
			if strings.HasPrefix(action, "kms:") {
				continue // The naive matcher knows one key only.
			}
			if naiveAllows(t, d, bucket, action, key) != got.Allowed {
				t.Errorf("the matchers disagree on %s %q: %+v", action, key, got)
			}
		}
	})
}
