package adminapi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/reason"
)

const (
	// maxActions bounds the actions of a request, maxKey a key in bytes, as S3
	// does.
	maxActions = 100
	maxKey     = 1024
)

// usual are the actions on a key that people ask about, whether or not the
// policy has them.
var usual = []string{"s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"}

// ExplainGrant implements stokerv1.GrantServiceServer.
func (s grants) ExplainGrant(ctx context.Context, r *stokerv1.ExplainGrantRequest) (*stokerv1.ExplainGrantResponse, error) {
	actions, err := readActions(r)
	if err != nil {
		return nil, err
	}
	t, g, err := s.find(ctx, r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	l, ok := s.Directory.Location(g.LocationID)
	if !ok {
		return nil, unknown("location", g.LocationID)
	}
	document, err := policy.Build(entitlement.Scope(g, l))
	if err != nil {
		return nil, reason.New(reason.GrantInvalid, "no session policy can be made of the grant %s/%s, so nothing is issued for it: %v; correct it",
			t.Name, g.Name, err).Because(err)
	}
	answer := &stokerv1.ExplainGrantResponse{SessionPolicy: document.String(), Length: int32(document.Length())}
	for _, st := range document.Statements() {
		answer.Statements = append(answer.Statements, &stokerv1.PolicyStatement{
			Purpose: st.Purpose, Actions: st.Actions, Resources: st.Resources, Condition: conditionText(st.Condition),
		})
	}
	if len(actions) == 0 && r.GetKey() != "" {
		actions = onKeys(document)
	}
	for _, action := range actions {
		d := document.Allows(action, r.GetKey())
		answer.Decisions = append(answer.Decisions, &stokerv1.PolicyDecision{Action: action, Key: r.GetKey(), Allowed: d.Allowed, Explanation: d.Reason})
	}
	return answer, nil
}

// readActions checks what is to be judged.
func readActions(r *stokerv1.ExplainGrantRequest) ([]string, error) {
	if n := len(r.GetActions()); n > maxActions {
		return nil, invalid("actions", "has %d entries; at most %d", n, maxActions)
	}
	for _, a := range r.GetActions() {
		if service, name, ok := strings.Cut(a, ":"); !ok || service == "" || name == "" {
			return nil, invalid("actions", "%.70q is no action; write one such as s3:PutObject", a)
		}
		if err := checkText("actions", a, maxFilter); err != nil {
			return nil, err
		}
	}
	if n := len(r.GetKey()); n > maxKey {
		return nil, invalid("key", "has %d bytes; S3 has keys of at most %d", n, maxKey)
	}
	return r.GetActions(), nil
}

// onKeys lists the policy's actions that are asked of a key, and the usual
// ones.
func onKeys(d policy.Document) []string {
	actions := slices.Clone(usual)
	for _, st := range d.Statements() {
		for _, a := range st.Actions {
			// What is asked of the bucket or of its KMS key has no key of its own.
			if strings.HasPrefix(a, "s3:") && !d.Allows(a, "").Allowed {
				actions = append(actions, a)
			}
		}
	}
	slices.Sort(actions)
	return slices.Compact(actions)
}

func conditionText(c policy.Condition) string {
	if c.Operator == "" {
		return ""
	}
	quoted := make([]string, len(c.Values))
	for i, v := range c.Values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return c.Key + " " + c.Operator + " " + strings.Join(quoted, " or ")
}
