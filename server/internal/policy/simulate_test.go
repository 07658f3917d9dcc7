package policy_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/partner/iamsimulate"
	"github.com/stokerd/stoker/server/internal/policy"
)

// simulated is how many policies the independent evaluator checks.
const simulated = 2_500

// hostile is what tenants try to have as a segment of their prefix. Build
// refuses some of it; the rest is to open nothing but itself.
var hostile = []string{
	"a", "b", "ab", "aa", "A", "acme", "acme2", "acme-", "locks", "data", "a b", "ä", "Ä", "ß", `a"b`, `"`, "a'b", "<a>", "a&b", "%2a", "%2e%2e", "%", "+",
	"...", "-", "_", ":", ",", ";", "=", "@", "~", "|", "(a)", "#", "!", "¡", "ÿ", "s3:prefix", "arn:aws:s3:::other", "aws:username", "Allow", `"]}`, `\u002a`,
	"*", "?", "a*", "?cme", "${aws:username}", "${*}", "$", "{a}", "[a-z]", `\`, "", ".", "..", " a", "a ", "\x00", "\n", "\u200b", "\u0101", "日本", "\xff",
}

// dice draws the cases, the same ones in every run.
type dice struct{ *rand.Rand }

func (d dice) one(list []string) string { return list[d.IntN(len(list))] }

func (d dice) prefix() string {
	segments := make([]string, 1+d.IntN(4))
	for i := range segments {
		segments[i] = d.one(hostile)
	}
	prefix := strings.Join(segments, "/")
	if d.IntN(8) > 0 {
		prefix += "/"
	}
	return prefix
}

func (d dice) scope() policy.Scope {
	s := policy.Scope{Bucket: d.one([]string{"provider-backups", "my.bucket"}), Prefix: d.prefix(), Access: accesses[d.IntN(len(accesses))]}
	if s.Access == policy.AccessActions {
		for _, action := range policy.Actions() {
			if d.IntN(3) == 0 {
				s.Actions = append(s.Actions, action)
			}
		}
	}
	return s
}

// question is a request, and whether the grant allows it.
type question struct {
	iamsimulate.Request
	allowed bool
}

// onObjects are actions of AWS on objects, granted or not.
var onObjects = []string{
	"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload",
	"s3:ListMultipartUploadParts", "s3:PutObjectAcl", "s3:PutObjectTagging", "s3:BypassGovernanceRetention", "s3:RestoreObject",
}

// questions are requests inside the grant, around it and far from it.
func (d dice) questions(s policy.Scope) (list []question) {
	may := granted(s)
	object := func(bucket, action, key string, allowed bool) {
		list = append(list, question{iamsimulate.Request{Action: action, Resource: "arn:aws:s3:::" + bucket + "/" + key}, allowed})
	}
	listing := func(action, prefix string, allowed bool) {
		r := iamsimulate.Request{Action: action, Resource: "arn:aws:s3:::" + s.Bucket, Context: map[string]string{"s3:prefix": prefix}}
		list = append(list, question{r, allowed})
	}
	for range 2 {
		action, key := d.one(onObjects), s.Prefix+d.one([]string{"x", "data/ab12", "a b", "../../other", "ä", "locks"})
		object(s.Bucket, action, key, slices.Contains(may, action))
	}
	object(s.Bucket, "s3:DeleteObject", s.Prefix+"locks/1", s.Access == policy.AccessBackup || slices.Contains(may, "s3:DeleteObject"))
	for _, key := range d.around(s.Prefix) {
		object(s.Bucket, d.one(onObjects), key, false)
		listing(d.one([]string{"s3:ListBucket", "s3:ListBucketVersions"}), key, false)
	}
	object("other-bucket", d.one(onObjects), s.Prefix+"x", false)
	object(s.Bucket+"2", d.one(onObjects), s.Prefix+"x", false)
	listing("s3:ListBucket", s.Prefix, slices.Contains(may, "s3:ListBucket"))
	listing("s3:ListBucket", s.Prefix+"deeper", slices.Contains(may, "s3:ListBucket"))
	listing("s3:ListBucket", "", false)
	whole := iamsimulate.Request{Action: "s3:ListBucket", Resource: "arn:aws:s3:::" + s.Bucket, Thorough: true}
	setting := iamsimulate.Request{
		Action:   d.one([]string{"s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutLifecycleConfiguration", "s3:PutBucketVersioning", "s3:GetBucketPolicy"}),
		Resource: "arn:aws:s3:::" + s.Bucket,
	}
	user := iamsimulate.Request{Action: "iam:PutUserPolicy", Resource: "arn:aws:iam::111122223333:user/stoker"}
	return append(list, question{whole, false}, question{setting, false}, question{user, false})
}

// around are keys that look like ones under the prefix and are not.
func (d dice) around(prefix string) (keys []string) {
	bare := strings.TrimSuffix(prefix, "/")
	candidates := []string{
		bare, bare + "2/x", bare + "x", bare + "-/x", bare + "%2Fx", "/" + prefix + "x", "x/" + prefix + "x", strings.ToUpper(prefix) + "x",
		strings.ToLower(prefix) + "x", prefix[1:] + "x", bare[:len(bare)/2] + "/x", "./" + prefix + "x", "../" + prefix + "x", strings.ReplaceAll(prefix, "/", "//") + "x",
		strings.ReplaceAll(prefix, "a", "b") + "x", d.prefix() + "x", d.prefix() + "x",
	}
	for range 6 {
		key := d.one(candidates)
		// A star in a request would be a pattern to the evaluator, and a key
		// that is no text none to S3.
		if key != "" && !strings.HasPrefix(key, prefix) && !strings.ContainsAny(key, "*?$") && strings.ToValidUTF8(key, "") == key {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestAnIndependentEvaluatorFindsNothingOutsideTheGrant asks an evaluator that
// shares no code with this project about hostile tenants' policies.
func TestAnIndependentEvaluatorFindsNothingOutsideTheGrant(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, 2))}
	var cases []iamsimulate.Case
	var scopes []policy.Scope
	var asked [][]question
	refused, requests := 0, 0
	for len(cases) < simulated {
		s := d.scope()
		document, err := policy.Build(s)
		if err != nil {
			refused++
			continue
		}
		c, questions := iamsimulate.Case{Session: document.String()}, d.questions(s)
		for _, q := range questions {
			c.Requests = append(c.Requests, q.Request)
		}
		requests += len(questions)
		cases, scopes, asked = append(cases, c), append(scopes, s), append(asked, questions)
	}
	open := 0
	for i, verdicts := range iamsimulate.Evaluate(t, cases) {
		for j, verdict := range verdicts {
			q := asked[i][j]
			if q.allowed {
				open++
			}
			if (verdict == iamsimulate.Allowed) != q.allowed {
				t.Errorf("%s of %q: %s on %s %v is %s\n%s", scopes[i].Access, scopes[i].Prefix, q.Action, q.Resource, q.Context, verdict, cases[i].Session)
			}
		}
	}
	t.Logf("%d policies checked with %d requests, %d of which they allow; %d grants were refused before", len(cases), requests, open, refused)
	if open < len(cases) || refused < len(cases)/2 {
		t.Error("the cases are too tame to show anything")
	}
}
