package devsts

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// errNotEvaluated says that a policy uses what this STS cannot evaluate. What
// it cannot evaluate it does not pretend to enforce.
var errNotEvaluated = errors.New("this STS does not evaluate it")

// statement is one statement of a policy, ready to be compared with requests.
type statement struct {
	deny bool
	// actions and resources are patterns; with their flag set the statement
	// is about all others.
	actions, resources       []string
	notActions, notResources bool
	conditions               []condition
}

// condition compares one key of a request with values.
type condition struct {
	key      string // lower case
	values   []string
	holds    func(given, wanted string) bool
	negated  bool // all values must differ, and a missing key does
	ifExists bool // a missing key is no obstacle
}

// access is a request as policies see it.
type access struct {
	action, resource string
	// keys are the condition keys that the request has, in lower case.
	keys map[string]string
}

// readPolicy reads a policy that has the right grammar. Its error wraps
// errNotEvaluated.
func readPolicy(text string) ([]statement, error) {
	document, err := object([]byte(text))
	if err != nil {
		return nil, err
	}
	raw, err := oneOrMore(document["Statement"])
	if err != nil {
		return nil, err
	}
	statements := make([]statement, len(raw))
	for i := range raw {
		if statements[i], err = readStatement(raw[i]); err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	return statements, nil
}

func readStatement(raw json.RawMessage) (s statement, err error) {
	members, err := object(raw)
	if err != nil {
		return s, err
	}
	var effect string
	if err := json.Unmarshal(members["Effect"], &effect); err != nil {
		return s, err
	}
	s.deny = effect == "Deny"
	if s.actions, s.notActions, err = patterns(members, "Action"); err != nil {
		return s, err
	}
	if s.resources, s.notResources, err = patterns(members, "Resource"); err != nil {
		return s, err
	}
	if members["Condition"] == nil {
		return s, nil
	}
	operators, err := object(members["Condition"])
	if err != nil {
		return s, err
	}
	for operator, raw := range operators {
		keys, err := object(raw)
		if err != nil {
			return s, err
		}
		for key, raw := range keys {
			c, err := readCondition(operator, key, raw)
			if err != nil {
				return s, err
			}
			s.conditions = append(s.conditions, c)
		}
	}
	return s, nil
}

// patterns reads an element or its negated form.
func patterns(members map[string]json.RawMessage, name string) (list []string, negated bool, err error) {
	raw, negated := members["Not"+name]
	if !negated {
		raw = members[name]
	}
	if list, err = texts(raw); err != nil {
		return nil, false, err
	}
	return list, negated, plain(list)
}

// plain refuses policy variables, and with them the escapes ${*}, ${?}, ${$}.
func plain(values []string) error {
	for _, value := range values {
		if strings.Contains(value, "${") {
			return fmt.Errorf("the policy variable in %s: %w", clip(value), errNotEvaluated)
		}
	}
	return nil
}

func readCondition(operator, key string, raw json.RawMessage) (condition, error) {
	c := condition{key: strings.ToLower(key)}
	name, ifExists := strings.CutSuffix(operator, "IfExists")
	operator, c.ifExists = name, ifExists
	if strings.HasPrefix(name, "StringNot") {
		c.negated, operator = true, "String"+strings.TrimPrefix(name, "StringNot")
	}
	if c.holds = operators[operator]; c.holds == nil {
		return c, fmt.Errorf("the condition operator %s: %w", clip(name), errNotEvaluated)
	}
	if !slices.Contains(knownKeys, c.key) && !strings.HasPrefix(c.key, principalTag) {
		return c, fmt.Errorf("the condition key %s: %w", clip(key), errNotEvaluated)
	}
	var err error
	if c.values, err = texts(raw); err != nil {
		return c, fmt.Errorf("condition %s: values other than strings: %w", clip(key), errNotEvaluated)
	}
	if strings.HasPrefix(operator, "Date") {
		for _, value := range c.values {
			if _, err := time.Parse(time.RFC3339, value); err != nil {
				return c, fmt.Errorf("the date %s, which is not in the form of RFC 3339: %w", clip(value), errNotEvaluated)
			}
		}
	}
	return c, plain(c.values)
}

// The condition keys that requests may have here; others are not evaluated.
const (
	keyUserID       = "aws:userid"
	keyUsername     = "aws:username"
	keyPrincipalARN = "aws:principalarn"
	keyAccount      = "aws:principalaccount"
	keyCurrentTime  = "aws:currenttime"
	keyIssueTime    = "aws:tokenissuetime"
	keyPrefix       = "s3:prefix"
	keyDelimiter    = "s3:delimiter"
	keyMaxKeys      = "s3:max-keys"
	principalTag    = "aws:principaltag/"
)

var knownKeys = []string{
	keyUserID, keyUsername, keyPrincipalARN, keyAccount, keyCurrentTime, keyIssueTime, keyPrefix, keyDelimiter, keyMaxKeys,
}

// operators are the condition operators without their negations. Dates were
// checked when the policy was read, or made here.
var operators = map[string]func(given, wanted string) bool{
	"StringEquals":          func(given, wanted string) bool { return given == wanted },
	"StringLike":            func(given, wanted string) bool { return like(given, wanted) },
	"DateLessThan":          func(given, wanted string) bool { return compareDates(given, wanted) < 0 },
	"DateLessThanEquals":    func(given, wanted string) bool { return compareDates(given, wanted) <= 0 },
	"DateGreaterThan":       func(given, wanted string) bool { return compareDates(given, wanted) > 0 },
	"DateGreaterThanEquals": func(given, wanted string) bool { return compareDates(given, wanted) >= 0 },
}

func compareDates(given, wanted string) int {
	a, _ := time.Parse(time.RFC3339, given)
	b, _ := time.Parse(time.RFC3339, wanted)
	return a.Compare(b)
}

// matches says whether the statement is about the request.
func (s statement) matches(a access) bool {
	action := slices.ContainsFunc(s.actions, func(p string) bool { return like(strings.ToLower(a.action), strings.ToLower(p)) })
	resource := slices.ContainsFunc(s.resources, func(p string) bool { return like(a.resource, p) })
	if action == s.notActions || resource == s.notResources {
		return false
	}
	for _, c := range s.conditions {
		if !c.met(a.keys) {
			return false
		}
	}
	return true
}

func (c condition) met(keys map[string]string) bool {
	given, present := keys[c.key]
	if !present {
		return c.ifExists || c.negated
	}
	return slices.ContainsFunc(c.values, func(wanted string) bool { return c.holds(given, wanted) }) != c.negated
}

// like matches text against a pattern in which * stands for any text and ? for
// any character.
func like(text, pattern string) bool {
	t, p := []rune(text), []rune(pattern)
	star, mark := -1, 0
	at := 0
	for i := 0; i < len(t); {
		switch {
		case at < len(p) && p[at] == '*':
			star, mark = at, i
			at++
		case at < len(p) && (p[at] == '?' || p[at] == t[i]):
			at++
			i++
		case star >= 0:
			// The last star takes one character more.
			mark++
			at, i = star+1, mark
		default:
			return false
		}
	}
	for at < len(p) && p[at] == '*' {
		at++
	}
	return at == len(p)
}

// denied says whether a statement denies the request.
func denied(statements []statement, a access) bool {
	return slices.ContainsFunc(statements, func(s statement) bool { return s.deny && s.matches(a) })
}

// allowed says whether a statement allows the request.
func allowed(statements []statement, a access) bool {
	return slices.ContainsFunc(statements, func(s statement) bool { return !s.deny && s.matches(a) })
}
