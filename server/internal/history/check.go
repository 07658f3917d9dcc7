package history

import (
	"fmt"
	"slices"
	"time"
)

// Rule names what was broken.
type Rule string

// The rules.
const (
	// IssuedAfterCut: a credential was issued to a party that was cut off.
	IssuedAfterCut Rule = "nothing is issued after an acknowledged cut-off"
	// DeliveredAfterCut: one reached it.
	DeliveredAfterCut Rule = "nothing is delivered after an acknowledged cut-off"
	// StreamAfterCut: its stream was opened, or lived on, or was told otherwise.
	StreamAfterCut Rule = "streams end promptly and with the reason"
	// ForeignKeys: a credential opens what is not its tenant's.
	ForeignKeys Rule = "no credential opens a foreign prefix"
	// OldTerms: a credential was issued under terms that no longer held.
	OldTerms Rule = "credentials are issued under the grant's terms of the moment"
	// IssueOrder: issue times do not increase.
	IssueOrder Rule = "issue times increase for each stream and grant"
	// Unrecorded: a credential left without its record.
	Unrecorded Rule = "every credential has its audit record"
	// Outlives: a credential ends after the certificate.
	Outlives Rule = "no credential outlives its certificate"
	// CallsAndIssues: the STS and the trail disagree.
	CallsAndIssues Rule = "the trail has every credential of the STS, and no other"
)

// Violation is one breach of a rule.
type Violation struct {
	Rule Rule
	Text string
}

// String gives both.
func (v Violation) String() string { return string(v.Rule) + ": " + v.Text }

// checker gathers violations.
type checker struct {
	*History
	records map[string]Recorded // by credential id
	keys    map[string]Issued   // by access key id
	found   []Violation
}

// Check gives all that is wrong with the history.
func (h *History) Check() []Violation {
	c := &checker{History: h, records: map[string]Recorded{}, keys: map[string]Issued{}}
	for _, r := range h.Recorded {
		c.records[r.Credential] = r
	}
	for _, i := range h.Issued {
		c.keys[i.AccessKeyID] = i
	}
	c.cuts()
	c.streams()
	c.received()
	c.order()
	c.recorded()
	return c.found
}

func (c *checker) breach(rule Rule, format string, args ...any) {
	c.found = append(c.found, Violation{rule, fmt.Sprintf(format, args...)})
}

// cuts checks that nothing was issued or delivered to who was cut off.
func (c *checker) cuts() {
	for _, cut := range c.Cuts {
		for _, r := range c.Recorded {
			// Which password a login was made with is not in the trail.
			if cut.Password == 0 && cut.covers(r.Party) && cut.in(r.At, r.At) {
				c.breach(IssuedAfterCut, "%s %+v, %s later %+v", cut.What, cut.Party, since(cut, r.At), r)
			}
		}
		for _, r := range c.Received {
			asked := r.At.Add(-c.Prompt)
			if r.Stream == 0 {
				asked = r.Asked
			}
			if cut.covers(r.Party) && cut.in(asked, r.At) {
				c.breach(DeliveredAfterCut, "%s %+v, %s later %+v", cut.What, cut.Party, since(cut, r.At), r)
			}
		}
	}
}

func since(cut Cut, at time.Time) time.Duration { return at.Sub(cut.Acknowledged) }

// streams checks that those of who was cut off ended in time and with the
// reason, and that none was opened meanwhile.
func (c *checker) streams() {
	for _, cut := range c.Cuts {
		if !cut.Ends {
			continue
		}
		for _, s := range c.Streams {
			if !cut.covers(s.Party) || s.Welcomed.IsZero() {
				continue
			}
			if cut.in(s.Asked, s.Welcomed) {
				c.breach(StreamAfterCut, "%s %+v, opened %s later: %+v", cut.What, cut.Party, since(cut, s.Welcomed), s)
			}
			if s.Welcomed.After(cut.Acknowledged) || !s.Ended.IsZero() && s.Ended.Before(cut.Acknowledged) {
				continue
			}
			// It was open at the acknowledgement.
			if s.Ended.IsZero() {
				c.breach(StreamAfterCut, "%s %+v, never ended: %+v", cut.What, cut.Party, s)
				continue
			}
			if late := since(cut, s.Ended); late > c.Prompt {
				c.breach(StreamAfterCut, "%s %+v, ended %s later: %+v", cut.What, cut.Party, late, s)
			}
			if !s.Left && !slices.Contains(c.reasons(s), s.Reason) {
				c.breach(StreamAfterCut, "%s %+v, told %q: %+v", cut.What, cut.Party, s.Reason, s)
			}
		}
	}
}

// reasons lists what a stream may be told at its end: more than one thing may
// have cut it off at that time, and its certificate may have ended.
func (c *checker) reasons(s Stream) (all []string) {
	if !s.CertificateEnd.IsZero() && !s.Ended.Before(s.CertificateEnd) {
		all = append(all, "CERTIFICATE_EXPIRED")
	}
	for _, cut := range c.Cuts {
		if cut.Ends && cut.covers(s.Party) {
			all = append(all, cut.Reasons...)
		}
	}
	return all
}

// received checks each credential by itself.
func (c *checker) received() {
	for _, r := range c.Received {
		if r.Expires.After(r.CertificateEnd) {
			c.breach(Outlives, "by %s: %+v", r.Expires.Sub(r.CertificateEnd), r)
		}
		record, ok := c.records[r.Credential]
		switch {
		case !ok:
			c.breach(Unrecorded, "%+v", r)
			continue
		case record.AccessKeyID != r.AccessKeyID, record.Tenant != r.Tenant, record.User != r.User, record.Agent != r.Agent, record.Grant != r.Grant,
			!record.Expires.Equal(r.Expires.Truncate(time.Microsecond)):
			c.breach(Unrecorded, "its record is of another: %+v, %+v", r, record)
		case record.At.After(r.At):
			c.breach(Unrecorded, "its record came %s later: %+v", record.At.Sub(r.At), r)
		}
		c.terms(record, r.Prefix)
	}
}

// terms checks the prefix of a credential against the grant's at the time of
// its issue.
func (c *checker) terms(r Recorded, prefix string) {
	for _, t := range c.Terms {
		if t.Tenant == r.Tenant && t.Grant == r.Grant && r.At.After(t.From) && (t.Until.IsZero() || r.At.Before(t.Until)) && prefix != t.Prefix {
			c.breach(OldTerms, "%q instead of %q since %s: %+v", prefix, t.Prefix, r.At.Sub(t.From), r)
		}
	}
}

// order checks that a stream's credentials for a grant come in order of issue.
func (c *checker) order() {
	type place struct {
		stream int
		grant  string
	}
	last := map[place]Received{}
	for _, r := range c.Received {
		if r.Stream == 0 {
			continue
		}
		at := place{r.Stream, r.Grant}
		if before, ok := last[at]; ok && !r.Issued.After(before.Issued) {
			c.breach(IssueOrder, "%+v came after %+v", r, before)
		}
		last[at] = r
	}
}

// recorded compares the trail with the STS: what it gave out is what the trail
// has, and opens the tenant's keys alone.
func (c *checker) recorded() {
	recorded := map[string]bool{}
	for _, r := range c.Recorded {
		issued, ok := c.keys[r.AccessKeyID]
		switch {
		case recorded[r.AccessKeyID]:
			c.breach(CallsAndIssues, "recorded twice: %+v", r)
		case !ok:
			c.breach(CallsAndIssues, "the STS knows nothing of %+v", r)
		default:
			if err := opensOnly(issued.Policy, c.Bucket, r.Tenant+"/"); err != nil {
				c.breach(ForeignKeys, "%v: %+v under %s", err, r, issued.Policy)
			}
		}
		recorded[r.AccessKeyID] = true
	}
	unrecorded := 0
	for _, i := range c.Issued {
		if !recorded[i.AccessKeyID] {
			unrecorded++
		}
	}
	if unrecorded > c.Discarded {
		c.breach(CallsAndIssues, "the trail lacks %d credentials that the STS gave out, and at most %d were discarded", unrecorded, c.Discarded)
	}
}

// SlowestEnd is the longest time from an acknowledged cut-off to the end of a
// stream that it ended, and how many streams were ended.
func (h *History) SlowestEnd() (slowest time.Duration, ended int) {
	for _, s := range h.Streams {
		first := time.Duration(-1)
		for _, cut := range h.Cuts {
			if cut.Ends && cut.covers(s.Party) && !s.Left && slices.Contains(cut.Reasons, s.Reason) &&
				!s.Welcomed.IsZero() && !s.Welcomed.After(cut.Acknowledged) {
				if d := since(cut, s.Ended); first < 0 || d < first {
					first = max(d, 0)
				}
			}
		}
		if first >= 0 {
			ended++
			slowest = max(slowest, first)
		}
	}
	return slowest, ended
}
