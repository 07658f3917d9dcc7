package revocation_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stokerd/stoker/internal/partner/iamsimulate"
	"github.com/stokerd/stoker/server/internal/revocation"
)

// simulated is how many documents the independent evaluator checks.
const simulated = 150

// asAWS is a session's request as AWS sees it.
func (s session) asAWS(thorough bool) iamsimulate.Request {
	r := iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::bucket/key", Thorough: thorough}
	r.Context = map[string]string{"aws:userid": "111122223333:" + s.name}
	if !s.issued.IsZero() {
		r.Context["aws:TokenIssueTime"] = s.issued.Truncate(time.Second).Format(time.RFC3339)
	}
	for tag, value := range s.tags {
		r.Context["aws:PrincipalTag/"+tag] = value
	}
	return r
}

// expected says whether an exact document is to deny the session. It does not
// know of a session that is younger than its own revocation, which cannot be.
func (s scene) expected(of session) (denied, known bool) {
	for _, r := range s.revocations {
		if r.TargetKind == "credential" && r.SessionName == of.name {
			if of.issued.After(r.Before) {
				return false, false
			}
			denied = true
		}
		late := of
		late.issued = of.issued.Add(-margin)
		denied = denied || r.TargetKind != "credential" && !of.issued.IsZero() && covers(r, late)
	}
	return denied, true
}

// TestAnIndependentEvaluatorDeniesTheRevokedAlone asks an evaluator that shares
// no code with this project. Exact documents must deny the older sessions of
// the revoked and no others; merged ones what the tests' own reading of them
// says, which TestComposeProperties bounds.
func TestAnIndependentEvaluatorDeniesTheRevokedAlone(t *testing.T) {
	scenes := rapid.Custom(drawScene)
	var cases []iamsimulate.Case
	var wanted [][]bool
	exact, requests, denied := 0, 0, 0
	for seed := 0; len(cases) < simulated; seed++ {
		s := scenes.Example(seed)
		d := revocation.Compose(s.revocations, s.limit)
		if d.Text == "" {
			continue
		}
		byText := denials(t, d.Text)
		c := iamsimulate.Case{Identity: []string{d.Text}}
		var wants []bool
		for i, of := range append(s.sessions, session{name: "botocore-session-1"}, session{name: "bare", issued: base.Add(-time.Hour)}) {
			want, known := byText(of), true
			if d.Merging == revocation.Exact {
				want, known = s.expected(of)
			}
			if !known {
				continue
			}
			if want {
				denied++
			}
			c.Requests, wants = append(c.Requests, of.asAWS(i == 0)), append(wants, want)
		}
		if d.Merging == revocation.Exact {
			exact++
		}
		requests += len(wants)
		cases, wanted = append(cases, c), append(wanted, wants)
	}
	for i, verdicts := range iamsimulate.Evaluate(t, cases) {
		for j, verdict := range verdicts {
			want := iamsimulate.Allowed
			if wanted[i][j] {
				want = iamsimulate.ExplicitlyDenied
			}
			if verdict != want {
				t.Errorf("%+v is %s, want %s\n%s", cases[i].Requests[j], verdict, want, cases[i].Identity[0])
			}
		}
	}
	t.Logf("%d documents, %d of them exact, checked with %d requests, %d of which they deny", len(cases), exact, requests, denied)
	if exact < len(cases)/4 || exact > len(cases)*3/4 || denied < requests/20 {
		t.Error("the cases are too tame to show anything")
	}
}
