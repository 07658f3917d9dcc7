package revocation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// PolicyName is the name of the inline policy on the role or user.
const PolicyName = "stoker-revocations"

// The space for all inline policies of one user or role, in characters without
// white space, by the IAM quotas.
const (
	UserLimit = 2_048
	RoleLimit = 10_240
)

// clockMargin is how much later than the revocation a session may have begun
// by AWS's clock and still be denied: AWS's clock may be ahead of the broker's.
const clockMargin = 5 * time.Second

// Merging is how much more than it was asked a Document denies.
type Merging int

const (
	// Exact: nothing more.
	Exact Merging = iota
	// Times: parties of one kind are all denied up to the latest of their
	// times.
	Times
	// Tenants: some tenants are denied in place of their users, agents, grants
	// and credentials.
	Tenants
)

// Document is the policy that denies what revocations name.
type Document struct {
	// Text is the policy; empty where there is nothing to deny.
	Text    string
	Merging Merging
	// LeftOut has the revocations, by id, that the policy does not cover, and
	// why.
	LeftOut map[string]string
}

// entry is one value that a statement denies.
type entry struct {
	kind, value string
	at          time.Time // zero for credentials
	tenant      string
}

// tagged has the kinds that are denied by the session tag of the same name, in
// the order of the document.
var tagged = []string{kindTenant, kindUser, kindAgent, kindGrant}

// plain is what ids and session names look like. In a policy "*", "?" and "$"
// would mean something else.
var plain = regexp.MustCompile(`^[A-Za-z0-9_=,.@-]{1,128}$`)

// Compose makes the policy for revocations of one account in at most limit
// characters. The same revocations give the same text in any order. It does
// not look at the clock: leave out what is past its end.
func Compose(revocations []storage.Revocation, limit int) Document {
	d := Document{LeftOut: map[string]string{}}
	ordered := slices.Clone(revocations)
	slices.SortFunc(ordered, func(a, b storage.Revocation) int { return cmp.Compare(a.ID, b.ID) })
	ordered = slices.DeleteFunc(ordered, func(r storage.Revocation) bool {
		if _, err := entryOf(r); err != nil {
			d.LeftOut[r.ID] = err.Error()
			return true
		}
		return false
	})
	entries := distinct(ordered)
	if len(entries) == 0 {
		return d
	}
	if statements := exact(entries); size(statements) <= limit {
		d.Text = text(statements)
		return d
	}
	d.Merging = Times
	if statements := byKind(entries); size(statements) <= limit {
		d.Text = text(statements)
		return d
	}
	d.Merging = Tenants
	if folded, ok := fold(entries, limit); ok {
		d.Text = text(byKind(folded))
		return d
	}
	kept := d.leaveOut(ordered, limit)
	d.Text = text(byKind(foldAll(distinct(kept))))
	return d
}

// entryOf is what denies the revoked party.
func entryOf(r storage.Revocation) (entry, error) {
	e := entry{kind: r.TargetKind, value: r.TargetID, tenant: r.TenantID}
	switch {
	case r.TargetKind == kindTenant:
		e.tenant, e.at = e.value, moment(r)
	case r.TargetKind == kindCredential:
		e.value = r.SessionName
	case slices.Contains(tagged, r.TargetKind):
		e.at = moment(r)
	default:
		return e, fmt.Errorf("a %s cannot be denied on the account", r.TargetKind)
	}
	if !plain.MatchString(e.value) || !plain.MatchString(e.tenant) {
		return e, fmt.Errorf("the id %.40q cannot be written into a policy", e.value)
	}
	return e, nil
}

// moment is the time of issue from which on sessions are not denied. Dates in
// policies have whole seconds, and so have the times of issue that AWS compares
// them with.
func moment(r storage.Revocation) time.Time {
	return r.Before.Add(clockMargin).Truncate(time.Second).Add(time.Second).UTC()
}

// distinct gives each party once, with its latest time, and leaves out what a
// tenant's own revocation covers anyway. All of ordered are writable.
func distinct(ordered []storage.Revocation) []entry {
	type party struct{ kind, value string }
	latest := map[party]entry{}
	moments := map[party]time.Time{}
	for _, r := range ordered {
		e, _ := entryOf(r)
		p := party{e.kind, e.value}
		if known, ok := latest[p]; !ok || known.at.Before(e.at) {
			latest[p] = e
		}
		if at := moment(r); moments[p].Before(at) {
			moments[p] = at
		}
	}
	var entries []entry
	for p, e := range latest {
		tenant := party{kindTenant, e.tenant}
		if p.kind != kindTenant && !moments[tenant].Before(moments[p]) {
			continue
		}
		// A credential that is folded into its tenant is denied as of its
		// revocation.
		if e.kind == kindCredential {
			e.at = moments[p]
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), a.at.Compare(b.at), cmp.Compare(a.value, b.value))
	})
	return entries
}

// statement denies values of one kind.
type statement struct {
	kind   string
	at     time.Time
	values []string
}

// exact has a statement for each kind and time.
func exact(entries []entry) []statement { return grouped(entries, false) }

// byKind has a statement for each kind, with the latest of its times.
func byKind(entries []entry) []statement { return grouped(entries, true) }

func grouped(entries []entry, merge bool) []statement {
	type group struct {
		kind string
		at   time.Time
	}
	latest := map[string]time.Time{}
	for _, e := range entries {
		if latest[e.kind].Before(e.at) {
			latest[e.kind] = e.at
		}
	}
	groups := map[group][]string{}
	for _, e := range entries {
		g := group{e.kind, e.at}
		switch {
		case e.kind == kindCredential:
			g.at = time.Time{}
		case merge:
			g.at = latest[e.kind]
		}
		groups[g] = append(groups[g], e.value)
	}
	statements := make([]statement, 0, len(groups))
	for g, values := range groups {
		slices.Sort(values)
		statements = append(statements, statement{g.kind, g.at, values})
	}
	order := append(slices.Clone(tagged), kindCredential)
	slices.SortFunc(statements, func(a, b statement) int {
		return cmp.Or(slices.Index(order, a.kind)-slices.Index(order, b.kind), a.at.Compare(b.at))
	})
	return statements
}

// The JSON of the policy.
type (
	policyJSON struct {
		Version   string
		Statement []statementJSON
	}
	statementJSON struct {
		Effect, Action, Resource string
		Condition                conditionJSON
	}
	conditionJSON struct {
		StringEquals map[string][]string `json:",omitempty"`
		StringLike   map[string][]string `json:",omitempty"`
		DateLessThan map[string]string   `json:",omitempty"`
	}
)

const (
	tagKey       = "aws:PrincipalTag/"
	userIDKey    = "aws:userid"
	issueTimeKey = "aws:TokenIssueTime"
	// anyone stands before the session's name in aws:userid: the account's or
	// the role's id.
	anyone = "*:"
)

func (s statement) json() statementJSON {
	deny := statementJSON{Effect: "Deny", Action: "*", Resource: "*"}
	if s.kind == kindCredential {
		values := make([]string, len(s.values))
		for i, v := range s.values {
			values[i] = anyone + v
		}
		deny.Condition.StringLike = map[string][]string{userIDKey: values}
		return deny
	}
	deny.Condition.StringEquals = map[string][]string{tagKey + s.kind: s.values}
	deny.Condition.DateLessThan = map[string]string{issueTimeKey: s.at.Format(time.RFC3339)}
	return deny
}

// text writes the policy, minified; empty for no statements.
func text(statements []statement) string {
	if len(statements) == 0 {
		return ""
	}
	document := policyJSON{Version: "2012-10-17"}
	for _, s := range statements {
		document.Statement = append(document.Statement, s.json())
	}
	raw, err := json.Marshal(document)
	if err != nil {
		panic(err) // strings, maps and slices of them
	}
	return string(raw)
}

// size is the length of the text, which has no white space, without writing
// it.
func size(statements []statement) int {
	if len(statements) == 0 {
		return 0
	}
	n := len(`{"Version":"2012-10-17","Statement":[]}`) + len(statements) - 1
	for _, s := range statements {
		n += overhead[s.kind] + len(s.values) - 1
		for _, v := range s.values {
			n += room(s.kind, v)
		}
	}
	return n
}

// room is what one value takes, without the comma.
func room(kind, value string) int {
	if kind == kindCredential {
		return len(`""`) + len(anyone) + len(value)
	}
	return len(`""`) + len(value)
}

// overhead is the length of a statement without values.
var overhead = func() map[string]int {
	lengths := map[string]int{}
	for _, kind := range append(slices.Clone(tagged), kindCredential) {
		raw, err := json.Marshal(statement{kind, time.Unix(0, 0).UTC(), []string{}}.json())
		if err != nil {
			panic(err)
		}
		lengths[kind] = len(raw)
	}
	return lengths
}()

// fold denies as few tenants as possible in place of their users, agents,
// grants and credentials, those first that have the most of these, until the
// rest fits.
func fold(entries []entry, limit int) ([]entry, bool) {
	narrow := map[string][]entry{}
	tenants := map[string]bool{}
	counts := map[string]int{}
	for _, e := range entries {
		counts[e.kind]++
		if e.kind == kindTenant {
			tenants[e.value] = true
		} else {
			narrow[e.tenant] = append(narrow[e.tenant], e)
		}
	}
	order := slices.SortedFunc(maps.Keys(narrow), func(a, b string) int {
		return cmp.Or(len(narrow[b])-len(narrow[a]), cmp.Compare(a, b))
	})
	now := size(byKind(entries))
	// add and remove keep the size as values come and go. A value's comma goes
	// to its statement if it is the only one there.
	add := func(kind, value string) {
		now += room(kind, value) + len(",")
		if counts[kind]++; counts[kind] == 1 {
			now += overhead[kind]
		}
	}
	remove := func(kind, value string) {
		now -= room(kind, value) + len(",")
		if counts[kind]--; counts[kind] == 0 {
			now -= overhead[kind]
		}
	}
	folded := map[string]bool{}
	for _, tenant := range order {
		folded[tenant] = true
		if !tenants[tenant] {
			add(kindTenant, tenant)
		}
		for _, e := range narrow[tenant] {
			remove(e.kind, e.value)
		}
		if now <= limit {
			return foldSome(entries, folded), true
		}
	}
	return nil, false
}

// foldAll denies tenants alone.
func foldAll(entries []entry) []entry {
	all := map[string]bool{}
	for _, e := range entries {
		all[e.tenant] = true
	}
	return foldSome(entries, all)
}

// foldSome replaces what belongs to the tenants by the tenants, as of the
// latest time of either.
func foldSome(entries []entry, folded map[string]bool) []entry {
	latest := map[string]entry{}
	var rest []entry
	for _, e := range entries {
		if !folded[e.tenant] && e.kind != kindTenant {
			rest = append(rest, e)
			continue
		}
		if known, ok := latest[e.tenant]; !ok || known.at.Before(e.at) {
			latest[e.tenant] = entry{kindTenant, e.tenant, e.at, e.tenant}
		}
	}
	return slices.AppendSeq(rest, maps.Values(latest))
}

// leaveOut gives the revocations, oldest first, whose tenants fit.
func (d *Document) leaveOut(ordered []storage.Revocation, limit int) (kept []storage.Revocation) {
	var admitted []string
	for _, r := range ordered {
		e, _ := entryOf(r)
		with := append(admitted, e.tenant)
		switch {
		case slices.Contains(admitted, e.tenant):
		case size([]statement{{kind: kindTenant, values: with}}) <= limit:
			admitted = with
		default:
			d.LeftOut[r.ID] = fmt.Sprintf("the policy has no room left: the account's inline policies may have %d characters beside other people's, "+
				"and the %d tenants revoked before fill them; wait for the oldest to expire, or make room", limit, len(admitted))
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// describe names what merging does, for the log.
func (m Merging) String() string {
	return [...]string{"exact", "times merged", "tenants in place of their parts"}[m]
}
