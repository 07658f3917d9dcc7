package iamsimulate_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/internal/partner/iamsimulate"
)

// Both ways of asking give what IAM's documentation says.
func TestEvaluate(t *testing.T) {
	const session = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/p/*"},
		{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b","Condition":{"StringLike":{"s3:prefix":"p/*"}}}]}`
	const deny = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{
		"StringEquals":{"aws:PrincipalTag/tenant":["t1"]},"DateLessThan":{"aws:TokenIssueTime":"2026-05-04T12:00:06Z"}}}]}`
	tagged := func(tenant, issued string) map[string]string {
		return map[string]string{"aws:PrincipalTag/tenant": tenant, "aws:TokenIssueTime": issued}
	}
	requests := []struct {
		iamsimulate.Request
		want iamsimulate.Verdict
	}{
		{iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/p/k"}, iamsimulate.Allowed},
		{iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/p2/k"}, iamsimulate.ImplicitlyDenied},
		{iamsimulate.Request{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/p/k"}, iamsimulate.ImplicitlyDenied},
		{iamsimulate.Request{Action: "s3:ListBucket", Resource: "arn:aws:s3:::b", Context: map[string]string{"s3:prefix": "p/"}}, iamsimulate.Allowed},
		{iamsimulate.Request{Action: "s3:ListBucket", Resource: "arn:aws:s3:::b", Context: map[string]string{"s3:prefix": "p"}}, iamsimulate.ImplicitlyDenied},
		{iamsimulate.Request{Action: "s3:ListBucket", Resource: "arn:aws:s3:::b"}, iamsimulate.ImplicitlyDenied},
		{iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/p/k", Context: tagged("t1", "2026-05-04T12:00:05Z")}, iamsimulate.ExplicitlyDenied},
		{iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/p/k", Context: tagged("t1", "2026-05-04T12:00:06Z")}, iamsimulate.Allowed},
		{iamsimulate.Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/p/k", Context: tagged("t2", "2026-05-04T12:00:05Z")}, iamsimulate.Allowed},
	}
	c := iamsimulate.Case{Session: session, Identity: []string{deny}}
	var want []iamsimulate.Verdict
	for _, thorough := range []bool{false, true} {
		for _, r := range requests {
			r.Thorough = thorough
			c.Requests = append(c.Requests, r.Request)
			want = append(want, r.want)
		}
	}
	if diff := cmp.Diff([][]iamsimulate.Verdict{want}, iamsimulate.Evaluate(t, []iamsimulate.Case{c})); diff != "" {
		t.Error(diff)
	}
}
