package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/policy"
)

// refusals collects every *ScopeError of a joined error.
func refusals(err error) []*policy.ScopeError {
	var out []*policy.ScopeError
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			out = append(out, refusals(e)...)
		}
		return out
	}
	var one *policy.ScopeError
	if errors.As(err, &one) {
		out = append(out, one)
	}
	return out
}

// wantRefusal checks that err is exactly one refusal of field, and that it
// says hint.
func wantRefusal(t *testing.T, err error, field, hint string) {
	t.Helper()
	all := refusals(err)
	if len(all) != 1 || all[0].Field != field {
		t.Fatalf("error = %v, want one *ScopeError about %s", err, field)
	}
	if !strings.Contains(all[0].Problem, hint) {
		t.Errorf("problem = %q, want it to say %q", all[0].Problem, hint)
	}
	if len(err.Error()) > 400 {
		t.Errorf("the error is %d bytes long", len(err.Error()))
	}
	for i, r := range err.Error() {
		if r < ' ' || r > '~' {
			t.Fatalf("the error holds %q at %d: %q", r, i, err.Error())
		}
	}
}

var hostilePrefixes = []struct {
	name, prefix, hint string
}{
	{"empty", "", "whole bucket"},
	{"star", "*", `"*"`},
	{"star in a segment", "ac*me/", `"*"`},
	{"star segment", "acme/*/", `"*"`},
	{"question mark", "acm?/", `"?"`},
	{"variable", "${aws:username}/", `"$"`},
	{"escaped star", "${*}/", `"$"`},
	{"bare dollar", "a$/", `"$"`},
	{"split variable", "a$/{aws:username}/", `"$"`},
	{"brace", "{acme,other}/", `"{"`},
	{"class", "[a-z]/", `"["`},
	{"closing bracket", "a]/", `"]"`},
	{"closing brace", "a}/", `"}"`},
	{"backslash", `acme\/`, `"\\"`},
	{"no slash", "acme", `write "acme/"`},
	{"leading slash", "/acme/", "leave it out"},
	{"only a slash", "/", "leave it out"},
	{"dot dot", "acme/../other/", `".."`},
	{"only dot dot", "../", `".."`},
	{"ends in dot dot", "acme/../", `".."`},
	{"dot", "./acme/", `"."`},
	{"empty segment", "acme//repo/", "empty segment"},
	{"ends in two slashes", "acme//", "empty segment"},
	{"leading space", " acme/", "space"},
	{"trailing space", "acme /", "space"},
	{"only a space", " /", "space"},
	{"newline", "acme\n/", "control"},
	{"tab", "acme\t/", "control"},
	{"nul", "acme\x00/", "control"},
	{"delete", "acme\x7f/", "control"},
	{"C1 control", "acme\u0085/", "control"},
	{"no-break space", "acme\u00a0/", "invisible"},
	{"soft hyphen", "ac\u00adme/", "invisible"},
	{"beyond Latin-1", "Łódź/", "U+00FF"},
	{"decomposed accent", "cafe\u0301/", "U+00FF"},
	{"emoji", "acme😀/", "U+00FF"},
	{"full-width star", "acme＊/", "U+00FF"},
	{"right-to-left override", "\u202eacme/", "U+00FF"},
	{"byte order mark", "\ufeffacme/", "U+00FF"},
	{"not UTF-8", "acme\xff/", "UTF-8"},
	{"Latin-1 bytes", "caf\xe9/", "UTF-8"},
	{"900 characters", strings.Repeat("a", 899) + "/", "at most 200"},
	{"one too long", strings.Repeat("a", policy.MaxPrefixLength) + "/", "at most 200"},
	{"one megabyte", strings.Repeat("é", 1<<19), "at most 200"},
}

func TestHostilePrefixesAreRefused(t *testing.T) {
	for _, tc := range hostilePrefixes {
		t.Run(tc.name, func(t *testing.T) {
			wantRefusal(t, policy.ValidatePrefix(tc.prefix), "prefix", tc.hint)
			s := scope(policy.AccessBackup, testKey)
			s.Prefix = tc.prefix
			d, err := policy.Build(s)
			wantRefusal(t, err, "prefix", tc.hint)
			if !d.IsZero() {
				t.Errorf("a document came with the error: %s", d)
			}
		})
	}
}

func TestGoodPrefixes(t *testing.T) {
	for _, p := range []string{
		"a/", "acme/", "acme/host-1/restic/", "0/", "acme.example/", ".../", "a b/", "Müller & Söhne/", "ÿ/", "¡/",
		`quo"ted/`, "it's/", "<acme>/", "a+b/", "a%2Fb/", "a:b/", "a,b/", "#1/", "~/", "a|b/", "(a)/", "locks/", "..a/", "a../",
		strings.Repeat("a", policy.MaxPrefixLength-1) + "/",
	} {
		t.Run(p, func(t *testing.T) {
			if err := policy.ValidatePrefix(p); err != nil {
				t.Fatal(err)
			}
			s := scope(policy.AccessBackup, testKey)
			s.Prefix = p
			d := build(t, s)
			for _, key := range []string{p, p + "x", p + "a/b/c*?${x}"} {
				agree(t, d, "s3:PutObject", key, true)
				agree(t, d, "s3:ListBucket", key, true)
			}
		})
	}
}

func TestBuckets(t *testing.T) {
	for _, name := range []string{"abc", "provider-backups", "my.bucket.1", "0-0", strings.Repeat("b", 63), "1.2.3", "1.2.3.4.5"} {
		if err := policy.ValidateBucket(name); err != nil {
			t.Errorf("ValidateBucket(%q) = %v", name, err)
		}
	}
	for _, tc := range []struct{ name, bucket, hint string }{
		{"empty", "", "not a bucket's name"},
		{"short", "ab", "3 to 63"},
		{"long", strings.Repeat("b", 64), "3 to 63"},
		{"one megabyte", strings.Repeat("b", 1<<20), "3 to 63"},
		{"star", "b*t", "lower-case letters"},
		{"only a star", "*", "lower-case letters"},
		{"question mark", "buc?et", "lower-case letters"},
		{"variable", "${aws:username}", "lower-case letters"},
		{"with a key", "bucket/other", "lower-case letters"},
		{"ARN", "arn:aws:s3:::bucket", "lower-case letters"},
		{"upper case", "Bucket", "lower-case letters"},
		{"underscore", "my_bucket", "lower-case letters"},
		{"two dots", "my..bucket", "single dots"},
		{"leading hyphen", "-bucket", "beginning"},
		{"trailing dot", "bucket.", "ending"},
		{"newline", "bucket\n", "lower-case letters"},
		{"beyond ASCII", "bückét", "lower-case letters"},
		{"IP address", "192.168.5.4", "IP address"},
		{"access point alias", "backup-abcdefgh123456-s3alias", "alias"},
		{"object lambda alias", "backup-abc--ol-s3", "alias"},
		{"multi-region access point", "mfzwi23gnjvgw.mrap", "alias"},
		{"directory bucket", "backup--usw2-az1--x-s3", "directory"},
		{"table bucket", "backup--table-s3", "table"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantRefusal(t, policy.ValidateBucket(tc.bucket), "bucket", tc.hint)
			s := scope(policy.AccessRestore, "")
			s.Bucket = tc.bucket
			_, err := policy.Build(s)
			wantRefusal(t, err, "bucket", tc.hint)
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tc := range []struct {
		name        string
		change      func(*policy.Scope)
		field, hint string
	}{
		{"no access", func(s *policy.Scope) { s.Access = "" }, "access", "use backup"},
		{"unknown access", func(s *policy.Scope) { s.Access = "custom" }, "access", "use backup"},
		{"actions with a named access", func(s *policy.Scope) { s.Actions = []string{"s3:DeleteObject"} }, "actions", `access "actions" only`},
		{"actions access without actions", func(s *policy.Scope) { s.Access = policy.AccessActions }, "actions", "at least one"},
		{"unknown partition", func(s *policy.Scope) { s.Partition, s.KMSKeyARN = "aws-moon", "" }, "partition", "aws-us-gov"},
		{"hostile partition", func(s *policy.Scope) { s.Partition, s.KMSKeyARN = "*", "" }, "partition", "aws-us-gov"},
		{"key id", func(s *policy.Scope) { s.KMSKeyARN = "1234abcd-12ab-34cd-56ef-1234567890ab" }, "kms_key_arn", "not a"},
		{"key alias", func(s *policy.Scope) { s.KMSKeyARN = "arn:aws:kms:eu-central-1:111122223333:alias/backup" }, "kms_key_arn", "not an alias"},
		{"every key", func(s *policy.Scope) { s.KMSKeyARN = "*" }, "kms_key_arn", "ARN of a key"},
		{"every key of the account", func(s *policy.Scope) { s.KMSKeyARN = "arn:aws:kms:eu-central-1:111122223333:key/*" }, "kms_key_arn", "ARN of a key"},
		{"variable in the region", func(s *policy.Scope) { s.KMSKeyARN = "arn:aws:kms:${x}:111122223333:key/1" }, "kms_key_arn", "ARN of a key"},
		{"key ARN and more", func(s *policy.Scope) { s.KMSKeyARN += "\n" }, "kms_key_arn", "ARN of a key"},
		{"key of another partition", func(s *policy.Scope) { s.Partition, s.Region = "aws-cn", "" }, "kms_key_arn", "bucket's partition"},
		{"key of another region", func(s *policy.Scope) { s.Region = "eu-west-1" }, "region", "bucket's region"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := scope(policy.AccessBackup, testKey)
			tc.change(&s)
			d, err := policy.Build(s)
			wantRefusal(t, err, tc.field, tc.hint)
			if !d.IsZero() {
				t.Errorf("a document came with the error: %s", d)
			}
		})
	}
}

func TestBuildReportsEverythingAtOnce(t *testing.T) {
	_, err := policy.Build(policy.Scope{
		Partition: "x", Bucket: "*", Prefix: "*", Access: "x", KMSKeyARN: "x",
	})
	var fields []string
	for _, e := range refusals(err) {
		fields = append(fields, e.Field)
	}
	if got := strings.Join(fields, " "); got != "partition bucket prefix access kms_key_arn" {
		t.Errorf("fields = %s; error = %v", got, err)
	}
	var first *policy.ScopeError
	if !errors.As(err, &first) {
		t.Error("errors.As finds no *ScopeError")
	}
}

// TestValuesAreCutBetweenCharacters: an error shows only what was there.
func TestValuesAreCutBetweenCharacters(t *testing.T) {
	err := policy.ValidatePrefix("x" + strings.Repeat("é", 500))
	var refused *policy.ScopeError
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if strings.Contains(refused.Value, `\xc3`) || !strings.HasSuffix(refused.Value, `\u00e9"...`) {
		t.Errorf("Value = %s", refused.Value)
	}
}

func TestOverlap(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"a/", "a/", true},
		{"a/", "a/b/", true},
		{"a/b/", "a/", true},
		{"a/", "ab/", false},
		{"a/b/", "a/c/", false},
		{"A/", "a/", false},
	} {
		if got := policy.Overlap(tc.a, tc.b); got != tc.want {
			t.Errorf("Overlap(%q, %q) = %v", tc.a, tc.b, got)
		}
	}
}
