package issuer

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of one request, from the STS API reference and the IAM guide's table
// of character limits. A character is a Unicode code point.
const (
	// MaxPolicyChars is the longest inline session policy.
	MaxPolicyChars = 2048
	// MaxTags is how many session tags one request may carry.
	MaxTags = 50
	// MaxTagKeyChars and MaxTagValueChars bound one session tag.
	MaxTagKeyChars   = 128
	MaxTagValueChars = 256
	// MinNameChars is the shortest session name, for both methods.
	MinNameChars = 2
	// MaxRoleSessionNameChars and MaxFederatedNameChars are the longest
	// session names of AssumeRole and of GetFederationToken.
	MaxRoleSessionNameChars = 64
	MaxFederatedNameChars   = 32
)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]+$`)
	tagPattern  = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

// Request asks for one credential.
type Request struct {
	// SessionName names the session in ARNs and in CloudTrail. It must come
	// from ids that the broker made: a bucket policy that names a session adds
	// rights beyond the session policy. 2 to 64 characters with AssumeRole, 2
	// to 32 with FederationToken, of letters, digits and _+=,.@-.
	SessionName string
	// Policy is the inline session policy. It must be a JSON object with at
	// least one statement, in at most MaxPolicyChars characters. There is no
	// request without one: with AssumeRole it would mean the whole role.
	Policy string
	// Duration is the lifetime asked for, between the account's MinLifetime
	// and MaxLifetime. A fraction of a second is cut off, so that a credential
	// does not outlive what it was derived from.
	Duration time.Duration
	// Tags are the session's tags. Keys are case-insensitive and unique.
	Tags []Tag
}

// Tag is one session tag.
type Tag struct{ Key, Value string }

// problem says why STS would refuse the request, or why it must not be sent,
// or gives "". It repeats no policy and no tag value.
func (r Request) problem(a Account) string {
	for _, p := range []string{
		nameProblem(r.SessionName, a.Method),
		policyProblem(r.Policy),
		durationProblem(r.Duration, a.MinLifetime, a.MaxLifetime),
		tagsProblem(r.Tags),
	} {
		if p != "" {
			return p
		}
	}
	return ""
}

func nameProblem(name string, m Method) string {
	longest := m.MaxNameChars()
	if n := utf8.RuneCountInString(name); n < MinNameChars || n > longest {
		return fmt.Sprintf("the session name has %d characters, not %d to %d", n, MinNameChars, longest)
	}
	if !namePattern.MatchString(name) {
		return "the session name has characters other than letters, digits and _+=,.@-"
	}
	return ""
}

func policyProblem(policy string) string {
	if policy == "" {
		return "the policy is empty: nothing is issued without one"
	}
	if n := utf8.RuneCountInString(policy); n > MaxPolicyChars {
		return fmt.Sprintf("the policy has %d characters, over the limit of %d", n, MaxPolicyChars)
	}
	if !utf8.ValidString(policy) {
		return "the policy is not valid UTF-8"
	}
	for _, c := range policy {
		if !policyChar(c) {
			return fmt.Sprintf("the policy contains %U, which STS does not take: only U+0009, U+000A, U+000D and U+0020 to U+00FF", c)
		}
	}
	// A document without statements is an empty policy in other words, and
	// not every STS reads it as "no rights".
	var document struct{ Statement json.RawMessage }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return "the policy is not a JSON object"
	}
	var statements []json.RawMessage
	if json.Unmarshal(document.Statement, &statements) != nil {
		statements = []json.RawMessage{document.Statement}
	}
	for _, s := range statements {
		var fields map[string]json.RawMessage
		if json.Unmarshal(s, &fields) == nil && len(fields) > 0 {
			return ""
		}
	}
	return "the policy has no statement: nothing is issued without one"
}

// policyChar is the character set of the Policy parameter.
func policyChar(c rune) bool {
	return c == '\t' || c == '\n' || c == '\r' || c >= 0x20 && c <= 0xff
}

func durationProblem(d, lowest, highest time.Duration) string {
	switch d = d.Truncate(time.Second); {
	case d < lowest:
		return fmt.Sprintf("the lifetime %s is under the account's shortest, %s", d, lowest)
	case d > highest:
		return fmt.Sprintf("the lifetime %s is over the account's longest, %s", d, highest)
	}
	return ""
}

func tagsProblem(tags []Tag) string {
	if len(tags) > MaxTags {
		return fmt.Sprintf("%d session tags are over the limit of %d", len(tags), MaxTags)
	}
	seen := make(map[string]bool, len(tags))
	for i, t := range tags {
		if p := tagProblem(t); p != "" {
			return fmt.Sprintf("session tag %d: %s", i+1, p)
		}
		key := strings.ToLower(t.Key)
		if seen[key] {
			return fmt.Sprintf("session tag %d: the key occurs twice (case does not count)", i+1)
		}
		seen[key] = true
	}
	return ""
}

func tagProblem(t Tag) string {
	switch keyChars := utf8.RuneCountInString(t.Key); {
	case keyChars < 1 || keyChars > MaxTagKeyChars:
		return fmt.Sprintf("the key has %d characters, not 1 to %d", keyChars, MaxTagKeyChars)
	case utf8.RuneCountInString(t.Value) > MaxTagValueChars:
		return fmt.Sprintf("the value has %d characters, over the limit of %d", utf8.RuneCountInString(t.Value), MaxTagValueChars)
	case !tagPattern.MatchString(t.Key):
		return "the key has characters other than letters, digits, spaces and _.:/=+-@"
	case !tagPattern.MatchString(t.Value):
		return "the value has characters other than letters, digits, spaces and _.:/=+-@"
	case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
		return "the key begins with aws:, which AWS keeps for itself"
	}
	return ""
}
