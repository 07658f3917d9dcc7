package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// statement is one of a session policy, as far as those that the broker makes
// go. It is read here anew, and not with the broker's own code.
type statement struct {
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

// UnmarshalJSON reads either.
func (o *oneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if err := json.Unmarshal(text, &one); err == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(o))
}

// opensOnly says whether all that a policy opens of S3 lies in the bucket under
// the prefix, or why not.
func opensOnly(policy, bucket, prefix string) error {
	var document struct{ Statement []statement }
	decoder := json.NewDecoder(strings.NewReader(policy))
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("the policy is no JSON: %w", err)
	}
	if len(document.Statement) == 0 {
		return errors.New("the policy is empty, which may stand for everything")
	}
	for _, s := range document.Statement {
		if s.Effect != "Allow" {
			continue
		}
		if len(s.Resource) == 0 || len(s.Action) == 0 {
			return errors.New("a statement names no resource or no action")
		}
		for _, resource := range s.Resource {
			if err := s.within(resource, "arn:aws:s3:::"+bucket, prefix); err != nil {
				return err
			}
		}
	}
	return nil
}

// within checks one resource of a statement.
func (s statement) within(resource, bucket, prefix string) error {
	if key, ok := strings.CutPrefix(resource, bucket+"/"); ok {
		return literal(key, prefix)
	}
	if resource != bucket {
		return fmt.Errorf("the resource %q is not the bucket's", resource)
	}
	if slices.Equal(s.Action, oneOrMore{"s3:GetBucketLocation"}) {
		return nil // it names no key
	}
	prefixes := s.Condition["StringLike"]["s3:prefix"]
	if len(prefixes) == 0 || len(s.Condition) != 1 || len(s.Condition["StringLike"]) != 1 {
		return fmt.Errorf("%v on the bucket without a prefix", s.Action)
	}
	for _, p := range prefixes {
		if err := literal(p, prefix); err != nil {
			return err
		}
	}
	return nil
}

// literal checks that a pattern matches nothing outside of the prefix: it begins
// with it, letter by letter.
func literal(pattern, prefix string) error {
	if !strings.HasPrefix(pattern, prefix) || strings.ContainsAny(prefix, "*?$") {
		return fmt.Errorf("the pattern %q is not under %q", pattern, prefix)
	}
	return nil
}
