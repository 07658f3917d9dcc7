package issuer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRefusedBeforeCall: what STS would refuse, or must never see, is not sent.
func TestRefusedBeforeCall(t *testing.T) {
	f := start(t)
	stss := map[Method]*STS{}
	for _, m := range methods {
		stss[m] = open(t, f.account(m))
	}
	tags := func(tags ...Tag) func(*Request) { return func(r *Request) { r.Tags = tags } }
	text := func(policy string) func(*Request) { return func(r *Request) { r.Policy = policy } }
	name := func(name string) func(*Request) { return func(r *Request) { r.SessionName = name } }
	life := func(d time.Duration) func(*Request) { return func(r *Request) { r.Duration = d } }
	manyTags := func(n int) (tags []Tag) {
		for i := range n {
			tags = append(tags, Tag{fmt.Sprint(i), ""})
		}
		return tags
	}
	for _, c := range []struct {
		name   string
		change func(*Request)
		want   string
		only   Method
	}{
		{"no policy", text(""), "policy is empty", ""},
		{"policy of spaces", text("   "), "not a JSON object", ""},
		{"policy of no JSON", text("allow"), "not a JSON object", ""},
		{"policy that is a list", text("[]"), "not a JSON object", ""},
		{"policy null", text("null"), "no statement", ""},
		{"policy without statement", text(`{}`), "no statement", ""},
		{"policy with empty statements", text(`{"Statement":[]}`), "no statement", ""},
		{"policy with an empty statement", text(`{"Statement":[{ }]}`), "no statement", ""},
		{"policy with text for statements", text(`{"Statement":"all"}`), "no statement", ""},
		{"policy with null for statements", text(`{"Statement":null}`), "no statement", ""},
		{"policy of 2049", text(policy + strings.Repeat(" ", 2049-len(policy))), "2049 characters", ""},
		{"policy with U+0100", text(strings.Replace(policy, "p/", "\u0100/", 1)), "U+0100", ""},
		{"policy with NUL", text(strings.Replace(policy, "p/", "\x00/", 1)), "U+0000", ""},
		{"policy of bad UTF-8", text(strings.Replace(policy, "p/", "\xff/", 1)), "UTF-8", ""},
		{"no name", name(""), "name has 0 characters", ""},
		{"name of 1", name("a"), "name has 1 characters", ""},
		{"federated name of 33", name(strings.Repeat("a", 33)), "name has 33 characters, not 2 to 32", FederationToken},
		{"role session name of 65", name(strings.Repeat("a", 65)), "name has 65 characters, not 2 to 64", AssumeRole},
		{"name with a slash", name("a/b"), "name has characters", ""},
		{"name with a star", name("a*"), "name has characters", ""},
		{"name with an umlaut", name("änne"), "name has characters", ""},
		{"name with a line break", name("ab\n"), "name has characters", ""},
		{"no duration", life(0), "under the account's shortest", ""},
		{"899.9 seconds", life(899900 * time.Millisecond), "under the account's shortest", ""},
		{"over an hour", life(time.Hour + time.Second), "over the account's longest", ""},
		{"51 tags", tags(manyTags(51)...), "51 session tags", ""},
		{"empty tag key", tags(Tag{"", "v"}), "tag 1: the key has 0", ""},
		{"tag key of 129", tags(Tag{strings.Repeat("k", 129), "v"}), "tag 1: the key has 129", ""},
		{"tag value of 257", tags(Tag{"a", "b"}, Tag{"k", strings.Repeat("v", 257)}), "tag 2: the value has 257", ""},
		{"odd tag key", tags(Tag{"k*", "v"}), "key has characters", ""},
		{"odd tag value", tags(Tag{"k", "${canary}"}), "value has characters", ""},
		{"reserved tag", tags(Tag{"Aws:k", "v"}), "AWS keeps", ""},
		{"tag twice", tags(Tag{"k", "v"}, Tag{"K", "v"}), "occurs twice", ""},
	} {
		for _, m := range methods {
			if c.only != "" && c.only != m {
				continue
			}
			t.Run(c.name+"/"+string(m), func(t *testing.T) {
				r := request()
				c.change(&r)
				_, err := stss[m].Issue(t.Context(), r)
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Kind != Permanent || e.Code != CodeRefused || !strings.Contains(e.Message, c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if ok && strings.Contains(e.Error(), "canary") {
					t.Errorf("repeats what was given: %v", e)
				}
			})
		}
	}
	if calls := f.Calls(); len(calls) != 0 {
		t.Errorf("calls were made: %v", calls)
	}
}

// TestLargestRequests are not refused, here or by the STS.
func TestLargestRequests(t *testing.T) {
	f := start(t)
	for m, longest := range map[Method]int{AssumeRole: 64, FederationToken: 32} {
		r := request()
		r.SessionName = strings.Repeat("a", longest-8) + "_+=,.@-0"
		r.Policy = policy + strings.Repeat(" ", 2048-len(policy))
		r.Duration = time.Hour
		r.Tags = []Tag{{strings.Repeat("k", 128), strings.Repeat("v", 256)}, {"Umlaut ä", "a_.:/=+-@ ß"}}
		if _, err := open(t, f.account(m)).Issue(t.Context(), r); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}
