package devsts

import (
	"errors"
	"fmt"
	"testing"
)

func TestConditions(t *testing.T) {
	keys := map[string]string{keyUserID: "AROA:stoker-1", keyIssueTime: "2026-01-02T03:04:05Z"}
	for _, c := range []struct {
		operator, key, value string
		want                 bool
	}{
		{"StringEquals", "aws:userid", "AROA:stoker-1", true},
		{"StringEquals", "AWS:UserId", "AROA:stoker-1", true},
		{"StringEquals", "aws:userid", "aroa:stoker-1", false},
		{"StringEquals", "aws:userid", "AROA:*", false},
		{"StringEquals", "aws:username", "x", false},
		{"StringEqualsIfExists", "aws:username", "x", true},
		{"StringEqualsIfExists", "aws:userid", "x", false},
		{"StringNotEquals", "aws:userid", "x", true},
		{"StringNotEquals", "aws:userid", "AROA:stoker-1", false},
		{"StringNotEquals", "aws:username", "x", true},
		{"StringLike", "aws:userid", "*:stoker-?", true},
		{"StringLike", "aws:userid", "*:stoker-??", false},
		{"StringNotLike", "aws:userid", "*:stoker-?", false},
		{"StringNotLike", "aws:userid", "*:other-?", true},
		{"DateLessThan", "aws:TokenIssueTime", "2026-01-02T03:04:05Z", false},
		{"DateLessThan", "aws:TokenIssueTime", "2026-01-02T03:04:06Z", true},
		{"DateLessThan", "aws:TokenIssueTime", "2026-01-02T04:04:05+02:00", false},
		{"DateLessThanEquals", "aws:TokenIssueTime", "2026-01-02T03:04:05Z", true},
		{"DateGreaterThan", "aws:TokenIssueTime", "2026-01-02T03:04:04Z", true},
		{"DateGreaterThanEquals", "aws:TokenIssueTime", "2026-01-02T03:04:06Z", false},
		{"DateLessThan", "aws:CurrentTime", "2999-01-01T00:00:00Z", false},
		{"StringEquals", "aws:PrincipalTag/tenant", "x", false},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.operator, c.key, c.value), func(t *testing.T) {
			statements, err := readPolicy(condition1(c.operator, c.key, c.value))
			if err != nil {
				t.Fatal(err)
			}
			a := access{action: "s3:GetObject", resource: "arn:aws:s3:::b/k", keys: keys}
			if got := denied(statements, a); got != c.want {
				t.Errorf("got %v", got)
			}
			if allowed(statements, a) {
				t.Error("a Deny allows")
			}
		})
	}
}

func TestActionsAndResources(t *testing.T) {
	for _, c := range []struct {
		members string
		want    bool
	}{
		{`"Action":"S3:getobject","Resource":"*"`, true},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::b/*"`, true},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::B/*"`, false},
		{`"Action":["sts:*","s3:Put*"],"Resource":"*"`, false},
		{`"NotAction":["sts:*","s3:Put*"],"Resource":"*"`, true},
		{`"NotAction":"s3:*","Resource":"*"`, false},
		{`"Action":"*","NotResource":"arn:aws:s3:::b/k"`, false},
		{`"Action":"*","NotResource":"arn:aws:s3:::b/k?"`, true},
	} {
		statements, err := readPolicy(`{"Statement":[{"Effect":"Allow",` + c.members + `}]}`)
		if err != nil {
			t.Fatal(err)
		}
		if got := allowed(statements, access{action: "s3:GetObject", resource: "arn:aws:s3:::b/k"}); got != c.want {
			t.Errorf("%s: got %v", c.members, got)
		}
	}
	if _, err := readPolicy(`{"Statement":[{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:userid}"}]}`); !errors.Is(err, errNotEvaluated) {
		t.Errorf("a variable: %v", err)
	}
}

// FuzzLike: the matcher agrees with a plain one, and ends.
func FuzzLike(f *testing.F) {
	for _, s := range [][2]string{{"abc", "a*c"}, {"aaa", "*a?*"}, {"", "**"}, {"p/x", "p/*"}, {"ä", "?"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if len(text) > 40 || len(pattern) > 12 {
			t.Skip()
		}
		if got, want := like(text, pattern), slowly([]rune(text), []rune(pattern)); got != want {
			t.Errorf("%q like %q: %v", text, pattern, got)
		}
	})
}

func slowly(text, pattern []rune) bool {
	if len(pattern) == 0 {
		return len(text) == 0
	}
	if pattern[0] == '*' {
		for i := range len(text) + 1 {
			if slowly(text[i:], pattern[1:]) {
				return true
			}
		}
		return false
	}
	return len(text) > 0 && (pattern[0] == '?' || pattern[0] == text[0]) && slowly(text[1:], pattern[1:])
}
