package devsts

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// AWS's limits, from the API reference.
const (
	maxRoleLifetime       = 43_200 * time.Second
	maxFederationLifetime = 129_600 * time.Second
	// maxChained bounds the session that a role takes of a role, and the
	// federated session of a root user.
	maxChained     = time.Hour
	maxPolicyChars = 2048
	maxTags        = 50
)

var (
	sessionNamePattern = pattern(`[\w+=,.@-]*`)
	externalIDPattern  = pattern(`[\w+=,.@:\/-]*`)
	policyPattern      = pattern(`[\x{0009}\x{000A}\x{000D}\x{0020}-\x{00FF}]+`)
	tagPattern         = pattern(`[\p{L}\p{Z}\p{N}_.:/=+\-@]*`)
	arnPattern         = pattern(`[\x{0009}\x{000A}\x{000D}\x{0020}-\x{007E}\x{0085}\x{00A0}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]+`)
)

// pattern makes an expression that matches the whole of a value.
func pattern(expression string) *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + expression + `)$`)
}

// violations gathers what is wrong with a call's parameters, in AWS's words.
type violations []string

func (v *violations) add(value, field, format string, args ...any) {
	shown := "null"
	if value != "" {
		shown = "'" + clip(value) + "'"
	}
	*v = append(*v, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", shown, field, fmt.Sprintf(format, args...)))
}

// err gives one ValidationError for all of them.
func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	noun := "errors"
	if len(v) == 1 {
		noun = "error"
	}
	return refuse(http.StatusBadRequest, "ValidationError", "%d validation %s detected: %s", len(v), noun, strings.Join(v, "; "))
}

// length checks a text's length in characters.
func (v *violations) length(value, field string, least, most int) {
	switch n := utf8.RuneCountInString(value); {
	case n < least:
		v.add(value, field, "Member must have length greater than or equal to %d", least)
	case n > most:
		v.add(value, field, "Member must have length less than or equal to %d", most)
	}
}

// match checks a text's characters.
func (v *violations) match(value, field string, allowed *regexp.Regexp) {
	if !utf8.ValidString(value) || !allowed.MatchString(value) {
		source := strings.TrimSuffix(strings.TrimPrefix(allowed.String(), "^(?:"), ")$")
		v.add(value, field, "Member must satisfy regular expression pattern: %s", source)
	}
}

// between checks a number.
func (v *violations) between(value int, field string, least, most int) {
	switch {
	case value < least:
		v.add(fmt.Sprint(value), field, "Member must have value greater than or equal to %d", least)
	case value > most:
		v.add(fmt.Sprint(value), field, "Member must have value less than or equal to %d", most)
	}
}

// name reads a required session name.
func (v *violations) name(p *parameters, parameter, field string, most int) string {
	name, given := p.text(parameter)
	if !given {
		v.add("", field, "Member must not be null")
		return ""
	}
	v.length(name, field, 2, most)
	v.match(name, field, sessionNamePattern)
	return name
}

// policy reads the inline session policy, "" where there is none. Its
// characters and length are checked here, its grammar by checkPolicy.
func (v *violations) policy(p *parameters) string {
	policy, given := p.text("Policy")
	if given {
		v.length(policy, "policy", 1, maxPolicyChars)
		if policy != "" {
			v.match(policy, "policy", policyPattern)
		}
	}
	return policy
}

// lifetime reads the session's duration.
func (v *violations) lifetime(p *parameters, fallback, least, most time.Duration) (time.Duration, error) {
	seconds, err := p.number("DurationSeconds", int(fallback/time.Second))
	if err != nil {
		return 0, err
	}
	v.between(seconds, "durationSeconds", int(least/time.Second), int(most/time.Second))
	return time.Duration(seconds) * time.Second, nil
}

// tokenSize reads the least size of the session token.
func (v *violations) tokenSize(p *parameters) (int, error) {
	size, err := p.number("MinimumSessionTokenSize", 0)
	if err != nil {
		return 0, err
	}
	v.between(size, "minimumSessionTokenSize", 0, maxTokenSize)
	return size, nil
}

// tags reads the session tags.
func (v *violations) tags(p *parameters) ([]Tag, error) {
	members, err := p.members("Tags")
	if err != nil {
		return nil, err
	}
	if len(members) > maxTags {
		v.add(fmt.Sprintf("%d tags", len(members)), "tags", "Member must have length less than or equal to %d", maxTags)
	}
	var tags []Tag
	for i, member := range members {
		field := fmt.Sprintf("tags.%d.member", i+1)
		key, _ := p.text(member + ".Key")
		value, given := p.text(member + ".Value")
		v.length(key, field+".key", 1, 128)
		v.match(key, field+".key", tagPattern)
		if !given {
			v.add("", field+".value", "Member must not be null")
		}
		v.length(value, field+".value", 0, 256)
		v.match(value, field+".value", tagPattern)
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			v.add(key, field+".key", "Member must not begin with aws:")
		}
		tags = append(tags, Tag{Key: key, Value: value})
	}
	return tags, duplicateTags(tags)
}

func duplicateTags(tags []Tag) error {
	seen := make(map[string]bool, len(tags))
	for _, t := range tags {
		key := strings.ToLower(t.Key)
		if seen[key] {
			return refuse(http.StatusBadRequest, "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[key] = true
	}
	return nil
}

// transitive reads which tags go on to the sessions of a role chain.
func transitive(p *parameters, tags []Tag) ([]string, error) {
	members, err := p.members("TransitiveTagKeys")
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, member := range members {
		key, _ := p.text(member)
		if !slices.ContainsFunc(tags, func(t Tag) bool { return strings.EqualFold(t.Key, key) }) {
			return nil, refuse(http.StatusBadRequest, "InvalidParameterValue", "The specified transitive tag key must be included in the requested tags.")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// noManagedPolicies refuses managed session policies: this account has none.
func noManagedPolicies(p *parameters) error {
	members, err := p.members("PolicyArns")
	if err != nil {
		return err
	}
	for _, member := range members {
		arn, _ := p.text(member + ".arn")
		return refuse(http.StatusBadRequest, "InvalidParameterValue", "The managed policy %s does not exist: this STS has none.", clip(arn))
	}
	return nil
}
