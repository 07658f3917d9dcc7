package policy_test

import (
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/policy"
)

func TestEveryActionCanBeListedAlone(t *testing.T) {
	for _, name := range policy.Actions() {
		t.Run(name, func(t *testing.T) {
			if err := policy.ValidateActions([]string{name}); err != nil {
				t.Fatal(err)
			}
			s := scope(policy.AccessActions, "")
			s.Actions = []string{name}
			d := build(t, s)
			key, foreign := "acme/x", "acme2/x"
			if st := d.Statements()[0]; st.Resources[0] == "arn:aws:s3:::provider-backups" && st.Condition.Key == "" {
				key = "" // A setting of the bucket.
			}
			agree(t, d, name, key, true)
			agree(t, d, name, foreign, false)
			for _, other := range policy.Actions() {
				if other != name {
					agree(t, d, other, key, false)
				}
			}
		})
	}
}

func TestActionsAreRefused(t *testing.T) {
	tooMany := make([]string, 1000)
	for i := range tooMany {
		tooMany[i] = "s3:GetObject"
	}
	for _, tc := range []struct {
		name    string
		actions []string
		hint    string
	}{
		{"none", nil, "at least one"},
		{"too many", tooMany, "too many"},
		{"everything", []string{"*"}, "wildcard"},
		{"all of S3", []string{"s3:*"}, "wildcard"},
		{"a family", []string{"s3:Get*"}, "wildcard"},
		{"question mark", []string{"s3:GetObjec?"}, "wildcard"},
		{"without the service", []string{"GetObject"}, "docs/policies.md"},
		{"another service", []string{"iam:CreateUser"}, "docs/policies.md"},
		{"the key's", []string{"kms:Decrypt"}, "docs/policies.md"},
		{"empty name", []string{""}, "docs/policies.md"},
		{"a setting", []string{"s3:PutBucketPolicy"}, "docs/policies.md"},
		{"spelling", []string{"s3:getobject"}, "write s3:GetObject"},
		{"uploads of all", []string{"s3:ListBucketMultipartUploads"}, "other tenants"},
		{"uploads of all, as a call", []string{"s3:ListMultipartUploads"}, "other tenants"},
		{"all buckets", []string{"s3:ListAllMyBuckets"}, "every bucket"},
		{"ACL", []string{"s3:PutObjectAcl"}, "anybody"},
		{"ACL of a version", []string{"s3:PutObjectVersionAcl"}, "anybody"},
		{"Object Lock", []string{"s3:bypassgovernanceretention"}, "Object Lock"},
		{"a call", []string{"s3:HeadObject"}, "list s3:GetObject"},
		{"twice", []string{"s3:GetObject", "s3:PutObject", "s3:GetObject"}, "listed twice"},
		{"one megabyte", []string{strings.Repeat("a", 1<<20)}, "docs/policies.md"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantRefusal(t, policy.ValidateActions(tc.actions), "actions", tc.hint)
			s := scope(policy.AccessActions, "")
			s.Actions = tc.actions
			d, err := policy.Build(s)
			wantRefusal(t, err, "actions", tc.hint)
			if !d.IsZero() {
				t.Errorf("a document came with the error: %s", d)
			}
		})
	}
}

func TestEveryBadActionIsReported(t *testing.T) {
	err := policy.ValidateActions([]string{"s3:*", "s3:GetObject", "s3:HeadBucket"})
	if all := refusals(err); len(all) != 2 {
		t.Errorf("error = %v, want two refusals", err)
	}
}
