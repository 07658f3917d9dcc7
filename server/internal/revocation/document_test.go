package revocation_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

// base is when the tests' revocations begin; whole seconds, so that
// expectations are easy to write.
var base = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// margin is by how much a denial reaches beyond its revocation.
const margin = 6 * time.Second

// id makes an id of the length of a UUID that can be read.
func id(kind string, n int) string { return fmt.Sprintf("%s-%0*d", kind, 35-len(kind), n) }

// revoke makes a revocation; sequence orders them.
func revoke(sequence int, kind, target, tenant string, before time.Time) storage.Revocation {
	r := storage.Revocation{
		Meta: storage.Meta{ID: fmt.Sprintf("r-%08d", sequence)}, TargetKind: kind, TargetID: target, TargetName: target,
		TenantID: tenant, Account: "main", Before: before, Until: before.Add(time.Hour), State: storage.RevocationPending,
	}
	if kind == "credential" {
		r.SessionName = "stoker-" + target[:min(25, len(target))]
	}
	return r
}

func TestComposeExactly(t *testing.T) {
	acme, borg := id("tenant", 1), id("tenant", 2)
	got := revocation.Compose([]storage.Revocation{
		revoke(5, "credential", id("credential", 9), borg, base),
		revoke(4, "agent", id("agent", 1), borg, base.Add(time.Minute)),
		revoke(3, "agent", id("agent", 2), borg, base.Add(300*time.Millisecond)),
		revoke(2, "agent", id("agent", 3), borg, base),
		revoke(1, "tenant", acme, acme, base),
		revoke(0, "tenant", acme, acme, base.Add(-time.Minute)),
		// Covered by the tenant's.
		revoke(6, "user", id("user", 1), acme, base),
		revoke(7, "credential", id("credential", 8), acme, base.Add(-time.Second)),
		// Later than the tenant's.
		revoke(8, "grant", id("grant", 1), acme, base.Add(time.Hour)),
	}, revocation.RoleLimit)
	statement := func(condition string) string {
		return `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{` + condition + `}}`
	}
	want := `{"Version":"2012-10-17","Statement":[` + strings.Join([]string{
		statement(`"StringEquals":{"aws:PrincipalTag/tenant":["` + acme + `"]},"DateLessThan":{"aws:TokenIssueTime":"2026-05-04T12:00:06Z"}`),
		statement(`"StringEquals":{"aws:PrincipalTag/agent":["` + id("agent", 2) + `","` + id("agent", 3) + `"]},"DateLessThan":{"aws:TokenIssueTime":"2026-05-04T12:00:06Z"}`),
		statement(`"StringEquals":{"aws:PrincipalTag/agent":["` + id("agent", 1) + `"]},"DateLessThan":{"aws:TokenIssueTime":"2026-05-04T12:01:06Z"}`),
		statement(`"StringEquals":{"aws:PrincipalTag/grant":["` + id("grant", 1) + `"]},"DateLessThan":{"aws:TokenIssueTime":"2026-05-04T13:00:06Z"}`),
		statement(`"StringLike":{"aws:userid":["*:stoker-credential-00000000000000"]}`),
	}, ",") + `]}`
	if diff := cmp.Diff(want, got.Text); diff != "" || got.Merging != revocation.Exact || len(got.LeftOut) != 0 {
		t.Errorf("%s (%v, %v)", diff, got.Merging, got.LeftOut)
	}
}

func TestComposeNothing(t *testing.T) {
	for _, limit := range []int{-5, 0, 2048} {
		if got := revocation.Compose(nil, limit); got.Text != "" || got.Merging != revocation.Exact {
			t.Errorf("got %+v", got)
		}
	}
}

// What is no id of ours must not get into a policy, where it could mean more.
func TestComposeRefusesOddIDs(t *testing.T) {
	acme := id("tenant", 1)
	odd := revoke(2, "credential", id("credential", 1), acme, base)
	odd.SessionName = "*"
	nameless := odd
	nameless.ID, nameless.SessionName = "r-3", ""
	all := []storage.Revocation{
		revoke(0, "user", "${aws:userid}", acme, base), revoke(1, "user", "a*", acme, base), odd, nameless,
		revoke(4, "agent", id("agent", 1), "", base), revoke(5, "certificate", "ab12", "", base), revoke(6, "tenant", `a"b`, "", base),
		revoke(7, "user", id("user", 1), acme, base),
	}
	got := revocation.Compose(all, 2048)
	if len(got.LeftOut) != 7 || strings.Count(got.Text, `"Effect"`) != 1 || !strings.Contains(got.Text, id("user", 1)) {
		t.Errorf("%s leaves out %v", got.Text, got.LeftOut)
	}
}

func TestComposeMergesStepByStep(t *testing.T) {
	var all []storage.Revocation
	add := func(n int, kind string, tenant int, apart time.Duration) {
		for range n {
			i := len(all)
			all = append(all, revoke(i, kind, id(kind, i), id("tenant", tenant), base.Add(time.Duration(i)*apart)))
		}
	}
	add(5, "user", 1, time.Minute)
	if got := revocation.Compose(all, 2048); got.Merging != revocation.Exact {
		t.Fatalf("5 users: %v", got.Merging)
	}
	add(15, "user", 2, time.Minute)
	got := revocation.Compose(all, 2048)
	if got.Merging != revocation.Times || strings.Count(got.Text, "aws:TokenIssueTime") != 1 || !strings.Contains(got.Text, "12:19:06Z") {
		t.Fatalf("20 users: %v %s", got.Merging, got.Text)
	}
	add(30, "agent", 3, time.Minute)
	got = revocation.Compose(all, 2048)
	// The tenant with the most goes first, and alone.
	if got.Merging != revocation.Tenants || !strings.Contains(got.Text, id("tenant", 3)) || strings.Contains(got.Text, id("tenant", 2)) || !strings.Contains(got.Text, id("user", 19)) {
		t.Fatalf("30 agents: %v %s", got.Merging, got.Text)
	}
	for tenant := 10; tenant < 80; tenant++ {
		add(1, "grant", tenant, time.Minute)
	}
	got = revocation.Compose(all, 2048)
	if got.Merging != revocation.Tenants || len(got.LeftOut) != 26 || len(got.Text) > 2048 {
		t.Fatalf("70 grants: %v, %d left out, %d characters", got.Merging, len(got.LeftOut), len(got.Text))
	}
	oldest := slices.Min(slices.Collect(maps.Keys(got.LeftOut)))
	if want := all[len(all)-26].ID; oldest != want || !strings.Contains(got.LeftOut[oldest], "no room left") {
		t.Errorf("from %s on, want %s: %s", oldest, want, got.LeftOut[oldest])
	}
}

// session is one set of keys, as AWS sees it.
type session struct {
	tags   map[string]string
	name   string
	issued time.Time
}

// denials evaluates a document of Compose, and of nobody else: it fails on
// anything that it does not know.
func denials(t rapid.TB, document string) func(session) bool {
	if document == "" {
		return func(session) bool { return false }
	}
	var policy struct {
		Version   string
		Statement []struct {
			Effect, Action, Resource string
			Condition                map[string]map[string]json.RawMessage
		}
	}
	decoder := json.NewDecoder(strings.NewReader(document))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&policy); err != nil || policy.Version != "2012-10-17" || len(policy.Statement) == 0 {
		t.Fatalf("%v: %s", err, document)
	}
	var statements [][]func(session) bool
	for _, statement := range policy.Statement {
		if statement.Effect != "Deny" || statement.Action != "*" || statement.Resource != "*" || len(statement.Condition) == 0 {
			t.Fatalf("a statement that is not narrowed: %s", document)
		}
		var all []func(session) bool
		for operator, keys := range statement.Condition {
			for key, raw := range keys {
				all = append(all, condition(t, operator, key, raw))
			}
		}
		statements = append(statements, all)
	}
	return func(s session) bool {
		return slices.ContainsFunc(statements, func(all []func(session) bool) bool {
			return !slices.ContainsFunc(all, func(met func(session) bool) bool { return !met(s) })
		})
	}
}

func condition(t rapid.TB, operator, key string, raw json.RawMessage) func(session) bool {
	var values []string
	if json.Unmarshal(raw, &values) != nil {
		var one string
		if err := json.Unmarshal(raw, &one); err != nil {
			t.Fatal(err)
		}
		values = []string{one}
	}
	if len(values) == 0 {
		t.Fatalf("%s has no values", key)
	}
	tag, tagged := strings.CutPrefix(key, "aws:PrincipalTag/")
	switch {
	case operator == "StringEquals" && tagged:
		return func(s session) bool { v, ok := s.tags[tag]; return ok && slices.Contains(values, v) }
	case operator == "StringLike" && key == "aws:userid":
		for i, v := range values {
			name, ok := strings.CutPrefix(v, "*:")
			if !ok || strings.ContainsAny(name, "*?") {
				t.Fatalf("pattern %q", v)
			}
			values[i] = name
		}
		return func(s session) bool { return slices.Contains(values, s.name) }
	case operator == "DateLessThan" && key == "aws:TokenIssueTime":
		limit, err := time.Parse(time.RFC3339, values[0])
		if err != nil || len(values) != 1 {
			t.Fatalf("%v: %v", err, values)
		}
		return func(s session) bool { return !s.issued.IsZero() && s.issued.Truncate(time.Second).Before(limit) }
	}
	t.Fatalf("condition %s %s", operator, key)
	return nil
}

// scene is a random lot of revocations and of sessions of the same parties.
type scene struct {
	revocations []storage.Revocation
	sessions    []session
	limit       int
}

// credential draws one of few credentials of a tenant.
func credential(t *rapid.T, tenant string) string {
	return fmt.Sprintf("%s-%020d", tenant[len(tenant)-4:], rapid.IntRange(0, 3).Draw(t, "credential"))
}

func drawScene(t *rapid.T) scene {
	var s scene
	tenants := rapid.IntRange(1, 80).Draw(t, "tenants")
	second := rapid.IntRange(0, 4000)
	pick := func(kind, tenant string) string {
		return fmt.Sprintf("%.8s-%s-%02d", kind, tenant[len(tenant)-4:], rapid.IntRange(0, 6).Draw(t, kind))
	}
	party := func() map[string]string {
		tenant := id("tenant", rapid.IntRange(0, tenants-1).Draw(t, "tenant"))
		return map[string]string{"tenant": tenant, "user": pick("user", tenant), "agent": pick("agent", tenant), "grant": pick("grant", tenant)}
	}
	n := rapid.IntRange(0, 150).Draw(t, "revocations")
	for i := range n {
		tags := party()
		kind := rapid.SampledFrom([]string{"tenant", "user", "agent", "grant", "credential"}).Draw(t, "kind")
		target := tags[kind]
		if kind == "credential" {
			target = credential(t, tags["tenant"])
		}
		before := base.Add(time.Duration(second.Draw(t, "before")) * time.Second / 2)
		s.revocations = append(s.revocations, revoke(i, kind, target, tags["tenant"], before))
	}
	for range 30 {
		tags := party()
		s.sessions = append(s.sessions, session{
			tags: tags, name: "stoker-" + credential(t, tags["tenant"]),
			issued: base.Add(time.Duration(second.Draw(t, "issued")) * time.Second / 2),
		})
	}
	s.limit = rapid.SampledFrom([]int{0, 150, 300, 700, 1500, 2048, 10240}).Draw(t, "limit")
	return s
}

// covers says whether a revocation asks for the session to be denied. A
// credential that is revoked was issued before that.
func covers(r storage.Revocation, s session) bool {
	named := s.tags[r.TargetKind] == r.TargetID
	if r.TargetKind == "credential" {
		named = r.SessionName == s.name && r.TenantID == s.tags["tenant"]
	}
	return named && s.issued.Before(r.Before.Truncate(time.Second))
}

func TestComposeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScene(t)
		d := revocation.Compose(s.revocations, s.limit)
		if len(d.Text) > s.limit && d.Text != "" {
			t.Fatalf("%d characters, limit %d", len(d.Text), s.limit)
		}
		shuffled := rapid.Permutation(s.revocations).Draw(t, "shuffled")
		if again := revocation.Compose(shuffled, s.limit); !cmp.Equal(again, d) {
			t.Fatalf("the order matters:\n%s\n%s", d.Text, again.Text)
		}
		bare := session{name: "botocore-session-1"}
		latest := time.Time{}
		concerned := map[string]bool{}
		for _, r := range s.revocations {
			if latest.Before(r.Before) {
				latest = r.Before
			}
			concerned[r.TenantID] = true
		}
		denies := denials(t, d.Text)
		for _, session := range s.sessions {
			denied := denies(session)
			wanted, exactly := false, false
			for _, r := range s.revocations {
				_, left := d.LeftOut[r.ID]
				wanted = wanted || covers(r, session) && !left
				late := session
				late.issued = session.issued.Add(-margin)
				exactly = exactly || covers(r, late) || r.SessionName == session.name
			}
			switch {
			case wanted && !denied:
				t.Fatalf("not denied: %+v\n%s", session, d.Text)
			case denied && d.Merging == revocation.Exact && !exactly:
				t.Fatalf("denied without a revocation: %+v\n%s", session, d.Text)
			case denied && !exactly && !concerned[session.tags["tenant"]]:
				t.Fatalf("somebody else's is denied: %+v\n%s", session, d.Text)
			case denied && !exactly && !session.issued.Before(latest.Add(margin)):
				t.Fatalf("issued after every revocation, and denied: %+v\n%s", session, d.Text)
			}
			// Keys without tags and time are nobody's session.
			if denies(bare) {
				t.Fatalf("untagged keys are denied:\n%s", d.Text)
			}
		}
	})
}
