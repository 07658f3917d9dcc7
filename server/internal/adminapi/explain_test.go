package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestExplainGrant(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	explain := func(key string, actions ...string) *stokerv1.ExplainGrantResponse {
		t.Helper()
		return must(c.grants.ExplainGrant(t.Context(), &stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "photos", Key: key, Actions: actions}))(t)
	}
	shown := must(c.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "photos"}))(t)
	all := explain("")
	if all.GetSessionPolicy() != shown.GetSessionPolicy() || int(all.GetLength()) != len(all.GetSessionPolicy()) || len(all.GetDecisions()) != 0 {
		t.Errorf("explained %v", all)
	}
	if n := len(all.GetStatements()); n != 4 {
		t.Fatalf("%d statements", n)
	}
	list := all.GetStatements()[0]
	if list.GetPurpose() != `list the keys that begin with "acme/photos/"` || list.GetCondition() != `s3:prefix StringLike "acme/photos/*"` ||
		!slices.Equal(list.GetActions(), []string{"s3:ListBucket"}) || !slices.Equal(list.GetResources(), []string{"arn:aws:s3:::backups"}) {
		t.Errorf("the first statement is %v", list)
	}
	decide := func(key string, actions ...string) (got []string) {
		for _, d := range explain(key, actions...).GetDecisions() {
			got = append(got, fmt.Sprint(d.GetAction(), " ", d.GetAllowed()))
			if d.GetKey() != key || d.GetExplanation() == "" {
				t.Errorf("decision %v", d)
			}
		}
		return got
	}
	for key, want := range map[string]string{
		"acme/photos/a.jpg":       "[s3:AbortMultipartUpload true s3:DeleteObject false s3:GetObject true s3:ListBucket true s3:ListMultipartUploadParts true s3:PutObject true]",
		"acme/photos/locks/x":     "[s3:AbortMultipartUpload true s3:DeleteObject true s3:GetObject true s3:ListBucket true s3:ListMultipartUploadParts true s3:PutObject true]",
		"acme/photos-other/a.jpg": "[s3:AbortMultipartUpload false s3:DeleteObject false s3:GetObject false s3:ListBucket false s3:ListMultipartUploadParts false s3:PutObject false]",
	} {
		if got := fmt.Sprint(decide(key)); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	if got, want := fmt.Sprint(decide("", "s3:GetBucketLocation", "s3:ListBucket", "iam:CreateUser")), "[s3:GetBucketLocation true s3:ListBucket false iam:CreateUser false]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestExplainGrantRefuses(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for name, test := range map[string]struct {
		r    *stokerv1.ExplainGrantRequest
		want reason.Reason
		text string
	}{
		"no tenant":        {&stokerv1.ExplainGrantRequest{Name: "photos"}, reason.InvalidRequest, "tenant is missing"},
		"no grant":         {&stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "music"}, reason.NotFound, `there is no grant "acme/music"`},
		"another tenant's": {&stokerv1.ExplainGrantRequest{Tenant: "borg", Name: "photos"}, reason.NotFound, `there is no grant "borg/photos"`},
		"no action":        {&stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "photos", Actions: []string{"PutObject"}}, reason.InvalidRequest, `actions "PutObject" is no action`},
		"a strange action": {&stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "photos", Actions: []string{"s3:\x00"}}, reason.InvalidRequest, "actions has the character"},
		"many actions":     {&stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "photos", Actions: make([]string, 101)}, reason.InvalidRequest, "actions has 101 entries"},
		"a long key":       {&stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "photos", Key: strings.Repeat("x", 1025)}, reason.InvalidRequest, "key has 1025 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.grants.ExplainGrant(t.Context(), test.r)
			refused(t, err, test.want, test.text)
		})
	}
	// As stored by a version that knew fewer dangers.
	tenant, location := mustTenant(t, c, "acme"), must(c.Store.ListLocations(t.Context(), storage.Page{Limit: 1}))(t)[0]
	must(c.Store.CreateGrant(t.Context(), storage.Grant{
		Meta: storage.Meta{ID: uuid.NewString()}, TenantID: tenant, Name: "old", LocationID: location.ID, Prefix: "acme*/", Access: "backup", Lifetime: time.Hour,
	}))(t)
	_, err := c.grants.ExplainGrant(t.Context(), &stokerv1.ExplainGrantRequest{Tenant: "acme", Name: "old"})
	refused(t, err, reason.GrantInvalid, "no session policy can be made of the grant acme/old, so nothing is issued for it")
}
