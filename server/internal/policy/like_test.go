package policy

import "testing"

// TestLike covers the matcher beyond the patterns that Build writes, all of
// which end in a star.
func TestLike(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "a", true},
		{"a", "ab", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"a*", "a", true},
		{"a*", "ba", false},
		{"*b", "ab", true},
		{"*b", "abc", false},
		{"a*b", "ab", true},
		{"a*b", "abab", true},
		{"a*b", "aba", false},
		{"a*a", "a", false},
		{"a*b*b", "ab", false},
		{"a*b*b", "abb", true},
		{"a*bc*c", "abcxc", true},
		{"a*bc*c", "abc", false},
		{"a**c", "ac", true},
		{"ä*", "ä/x", true},
		{"a?c", "abc", false},
		{"a?c", "a?c", true},
		{"${x}*", "${x}y", true},
	} {
		if got := like(tc.pattern, tc.text); got != tc.want {
			t.Errorf("like(%q, %q) = %v", tc.pattern, tc.text, got)
		}
	}
}
