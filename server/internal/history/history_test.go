package history_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/history"
)

// start is when the forged histories begin.
var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// at is a moment of the forged histories, in seconds.
func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

const goodPolicy = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::bucket","Condition":{"StringLike":{"s3:prefix":"acme/*"}}},
	{"Effect":"Allow","Action":"s3:GetBucketLocation","Resource":"arn:aws:s3:::bucket"},
	{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":["arn:aws:s3:::bucket/acme/*","arn:aws:s3:::bucket/acme/x/*"]}]}`

// honest is a history in which all is as it should be: two credentials on a
// stream, then the user is disabled, the stream ends; the user is enabled, a new
// stream gets a third, and a call the same one again.
func honest() *history.History {
	party := history.Party{Tenant: "acme", User: "ann", Agent: "laptop", Certificate: "5e", Session: "s1", Password: 1}
	h := &history.History{Bucket: "bucket", Prompt: time.Second}
	later := party
	later.Session = "s2"
	h.Streams = []history.Stream{
		{Party: party, ID: 1, Asked: at(0), Welcomed: at(0.1), Ended: at(10.2), Reason: "USER_DISABLED"},
		{Party: later, ID: 2, Asked: at(20.1), Welcomed: at(20.2), Ended: at(30), Left: true},
	}
	for i, c := range []struct {
		stream       int
		asked, taken float64
		id           string
		issued       float64
	}{{1, 0, 1.1, "c1", 1}, {1, 0, 5.1, "c2", 5}, {2, 20.1, 21.1, "c3", 21}, {0, 22, 22.1, "c3", 21}} {
		p := party
		if i > 1 {
			p = later
		}
		p.Grant, p.Credential = "nightly", c.id
		h.Received = append(h.Received, history.Received{
			Party: p, Stream: c.stream, Asked: at(c.asked), At: at(c.taken), AccessKeyID: "ASIA" + c.id, Prefix: "acme/",
			Issued: at(c.issued), Expires: at(c.issued + 60), CertificateEnd: at(3600),
		})
		if i < 3 {
			h.Recorded = append(h.Recorded, history.Recorded{Party: p, At: at(c.issued + 0.05), AccessKeyID: "ASIA" + c.id, Expires: at(c.issued + 60)})
			h.Issued = append(h.Issued, history.Issued{AccessKeyID: "ASIA" + c.id, At: at(c.issued), Policy: goodPolicy})
		}
	}
	h.Cuts = []history.Cut{{
		Party: history.Party{Tenant: "acme", User: "ann"}, What: "user disabled", Acknowledged: at(10), Lifted: at(20), Ends: true,
		Reasons: []string{"USER_DISABLED"},
	}}
	h.Terms = []history.Terms{{Tenant: "acme", Grant: "nightly", Prefix: "acme/", From: at(-5)}}
	return h
}

func TestHonestHistory(t *testing.T) {
	h := honest()
	for _, v := range h.Check() {
		t.Error(v)
	}
	if slowest, ended := h.SlowestEnd(); slowest.Round(time.Millisecond) != 200*time.Millisecond || ended != 1 {
		t.Errorf("the slowest of %d ended %s later", ended, slowest)
	}
}

// Each rule is broken, and found to be broken.
func TestForgedHistories(t *testing.T) {
	type forge = func(*history.History)
	// another adds a credential to the trail and the STS.
	another := func(h *history.History, p history.Party, when float64) {
		p.Grant, p.Credential = "nightly", "c9"
		h.Recorded = append(h.Recorded, history.Recorded{Party: p, At: at(when), AccessKeyID: "ASIAc9", Expires: at(when + 60)})
		h.Issued = append(h.Issued, history.Issued{AccessKeyID: "ASIAc9", At: at(when), Policy: goodPolicy})
	}
	cut := func(c history.Cut) forge {
		return func(h *history.History) { h.Cuts = []history.Cut{c} }
	}
	for name, c := range map[string]struct {
		forge forge
		want  history.Rule
	}{
		"issued to a disabled user": {func(h *history.History) { another(h, h.Streams[0].Party, 15) }, history.IssuedAfterCut},
		"issued to a disabled tenant": {func(h *history.History) {
			h.Cuts[0].Party = history.Party{Tenant: "acme"}
			another(h, history.Party{Tenant: "acme", User: "bob", Agent: "desktop"}, 15)
		}, history.IssuedAfterCut},
		"issued to a revoked certificate, never to be lifted": {
			cut(history.Cut{Party: history.Party{Certificate: "5e"}, Acknowledged: at(3)}), history.IssuedAfterCut},
		"issued for a disabled grant": {cut(history.Cut{Party: history.Party{Tenant: "acme", Grant: "nightly"}, Acknowledged: at(3), Lifted: at(6)}), history.IssuedAfterCut},
		"issued to an ended session":  {cut(history.Cut{Party: history.Party{Session: "s1"}, Acknowledged: at(3)}), history.IssuedAfterCut},
		"delivered by a call after the cut": {func(h *history.History) {
			h.Received[3].Asked, h.Received[3].At = at(15), at(15.1)
		}, history.DeliveredAfterCut},
		"delivered on a stream long after the cut": {func(h *history.History) {
			h.Received[1].At = at(12)
		}, history.DeliveredAfterCut},
		"a revoked credential delivered again": {cut(history.Cut{Party: history.Party{Credential: "c3"}, Acknowledged: at(21.5)}), history.DeliveredAfterCut},
		"delivered for a password of before":   {cut(history.Cut{Party: history.Party{Tenant: "acme", User: "ann", Password: 2}, Acknowledged: at(3)}), history.DeliveredAfterCut},
		"a stream that outlives the cut":       {func(h *history.History) { h.Streams[0].Ended = at(11.5) }, history.StreamAfterCut},
		"a stream that never ends":             {func(h *history.History) { h.Streams[0].Ended = time.Time{} }, history.StreamAfterCut},
		"a stream told something else":         {func(h *history.History) { h.Streams[0].Reason = "INTERNAL" }, history.StreamAfterCut},
		"a stream told nothing":                {func(h *history.History) { h.Streams[0].Reason = "" }, history.StreamAfterCut},
		"a stream told of an end to come": {func(h *history.History) {
			h.Streams[0].CertificateEnd, h.Streams[0].Reason = at(10.3), "CERTIFICATE_EXPIRED"
		}, history.StreamAfterCut},
		"a stream opened after the cut": {func(h *history.History) {
			h.Streams[1].Asked, h.Streams[1].Welcomed = at(12), at(12.1)
		}, history.StreamAfterCut},
		"a policy with another's prefix": {edit("acme/x/*", "other/x/*"), history.ForeignKeys},
		"a policy with a sibling":        {edit("bucket/acme/*", "bucket/acme*"), history.ForeignKeys},
		"a policy with a wildcard":       {edit("bucket/acme/*", "bucket/*/acme/*"), history.ForeignKeys},
		"a policy for all buckets":       {edit("arn:aws:s3:::bucket/acme/*", "*"), history.ForeignKeys},
		"a policy for another bucket":    {edit("arn:aws:s3:::bucket/acme/*", "arn:aws:s3:::bucket2/acme/*"), history.ForeignKeys},
		"a policy that lists everything": {edit(`{"s3:prefix":"acme/*"}`, `{"s3:prefix":["acme/*","*"]}`), history.ForeignKeys},
		"a policy that lists without a prefix": {edit(`,"Condition":{"StringLike":{"s3:prefix":"acme/*"}}`, ``),
			history.ForeignKeys},
		"a policy that lists by another condition":   {edit(`"StringLike":{`, `"StringLikeIfExists":{`), history.ForeignKeys},
		"a policy with another action on the bucket": {edit(`s3:GetBucketLocation`, `s3:DeleteBucket`), history.ForeignKeys},
		"an empty policy":                {func(h *history.History) { h.Issued[0].Policy = `{"Statement":[]}` }, history.ForeignKeys},
		"no policy":                      {func(h *history.History) { h.Issued[0].Policy = "" }, history.ForeignKeys},
		"a statement without a resource": {edit(`"Resource":["arn:aws:s3:::bucket/acme/*","arn:aws:s3:::bucket/acme/x/*"]`, `"NotResource":[]`), history.ForeignKeys},
		"an old prefix": {func(h *history.History) {
			h.Terms = []history.Terms{
				{Tenant: "acme", Grant: "nightly", Prefix: "acme/", From: at(-5), Until: at(2)},
				{Tenant: "acme", Grant: "nightly", Prefix: "acme/new/", From: at(3)},
			}
		}, history.OldTerms},
		"the same issue time":       {func(h *history.History) { h.Received[1].Issued = h.Received[0].Issued }, history.IssueOrder},
		"an earlier issue time":     {func(h *history.History) { h.Received[1].Issued = at(0.5) }, history.IssueOrder},
		"no record":                 {func(h *history.History) { h.Recorded, h.Discarded = h.Recorded[:2], 9 }, history.Unrecorded},
		"a record that came later":  {func(h *history.History) { h.Recorded[0].At = at(2) }, history.Unrecorded},
		"another agent's record":    {func(h *history.History) { h.Recorded[0].Agent = "desktop" }, history.Unrecorded},
		"another tenant's record":   {func(h *history.History) { h.Received[0].Tenant = "other" }, history.Unrecorded},
		"another user's record":     {func(h *history.History) { h.Received[0].User = "bob" }, history.Unrecorded},
		"another key than recorded": {func(h *history.History) { h.Received[0].AccessKeyID = "ASIAc2" }, history.Unrecorded},
		"another end than recorded": {func(h *history.History) { h.Received[0].Expires = at(70) }, history.Unrecorded},
		"longer than the certificate": {func(h *history.History) { h.Received[0].CertificateEnd = at(30) },
			history.Outlives},
		"a call that is not recorded": {func(h *history.History) {
			h.Issued = append(h.Issued, history.Issued{AccessKeyID: "ASIAc8", At: at(3), Policy: goodPolicy})
		}, history.CallsAndIssues},
		"a record of no call": {func(h *history.History) { h.Issued = h.Issued[1:] }, history.CallsAndIssues},
		"a key recorded twice": {func(h *history.History) {
			again := h.Recorded[0]
			again.Credential = "c7"
			h.Recorded = append(h.Recorded, again)
		}, history.CallsAndIssues},
	} {
		t.Run(name, func(t *testing.T) {
			h := honest()
			c.forge(h)
			found := h.Check()
			for _, v := range found {
				if v.Rule == c.want {
					return
				}
			}
			t.Errorf("not found; found %v", found)
		})
	}
}

// edit changes the policy of the first credential.
func edit(old, replacement string) func(*history.History) {
	return func(h *history.History) {
		if !strings.Contains(h.Issued[0].Policy, old) {
			panic("nothing to edit: " + old)
		}
		h.Issued[0].Policy = strings.Replace(h.Issued[0].Policy, old, replacement, 1)
	}
}

// What only looks like a breach is none.
func TestAllowedHistories(t *testing.T) {
	for name, forge := range map[string]func(*history.History){
		"issued while the cut-off was being made": func(h *history.History) { h.Recorded[1].At, h.Received[1].At = at(9.99), at(10) },
		"lifted meanwhile":                        func(h *history.History) { h.Recorded[2].At = at(20.5) },
		"another user is cut off":                 func(h *history.History) { h.Cuts[0].Party = history.Party{Tenant: "acme", User: "bob"} },
		"left by the agent at the same time": func(h *history.History) {
			h.Cuts[0].Party = history.Party{Tenant: "acme"}
			h.Streams[0].Left, h.Streams[0].Reason = true, "CANCELLED"
		},
		"cut off twice, told the first reason": func(h *history.History) {
			h.Cuts = append(h.Cuts, history.Cut{Party: history.Party{Tenant: "acme"}, Acknowledged: at(10.1), Lifted: at(19), Ends: true, Reasons: []string{"TENANT_DISABLED"}})
		},
		"its certificate ended at the same time": func(h *history.History) {
			h.Streams[0].CertificateEnd, h.Streams[0].Reason = at(10.1), "CERTIFICATE_EXPIRED"
		},
		"a login with the new password": func(h *history.History) {
			h.Cuts = []history.Cut{{Party: history.Party{Tenant: "acme", User: "ann", Password: 2}, Acknowledged: at(10), Ends: true, Reasons: []string{"USER_DISABLED"}}}
			h.Streams[1].Password, h.Received[2].Password, h.Received[3].Password = 2, 2, 2
		},
		"discarded, and known to be": func(h *history.History) {
			h.Issued = append(h.Issued, history.Issued{AccessKeyID: "ASIAc8", At: at(3), Policy: goodPolicy})
			h.Discarded = 1
		},
		"a grant that was cut off and a stream that goes on": func(h *history.History) {
			h.Cuts = []history.Cut{{Party: history.Party{Tenant: "acme", Grant: "nightly"}, Acknowledged: at(6), Lifted: at(7)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := honest()
			forge(h)
			for _, v := range h.Check() {
				t.Error(v)
			}
		})
	}
}
