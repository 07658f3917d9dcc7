package adminapi_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestListRecords(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	events := func(r *stokerv1.ListRecordsRequest) []string {
		var events []string
		for _, record := range must(c.audit.ListRecords(t.Context(), r))(t).GetRecords() {
			events = append(events, record.GetEvent()+" "+record.GetDetail()["name"])
		}
		return events
	}
	if got := events(&stokerv1.ListRecordsRequest{Tenant: "borg"}); !slices.Equal(got, []string{
		"admin.created borg", "admin.created nightly@borg", "admin.created borg/server-1",
	}) {
		t.Errorf("borg's records: %q", got)
	}
	if got := events(&stokerv1.ListRecordsRequest{Tenant: "acme", Login: "NIGHTLY"}); !slices.Equal(got, []string{"admin.created nightly@acme"}) {
		t.Errorf("a login's records: %q", got)
	}
	if got := events(&stokerv1.ListRecordsRequest{Agent: "server-1", Events: []string{"admin.deleted", "admin.updated"}}); got != nil {
		t.Errorf("no such events: %q", got)
	}
	if got := events(&stokerv1.ListRecordsRequest{Grant: "photos"}); !slices.Equal(got, []string{"admin.created acme/photos"}) {
		t.Errorf("a grant's records: %q", got)
	}
	if got := events(&stokerv1.ListRecordsRequest{BeforeTime: timestamppb.New(time.Now().Add(-time.Hour))}); got != nil {
		t.Errorf("an hour ago: %q", got)
	}
	if got := events(&stokerv1.ListRecordsRequest{AfterTime: timestamppb.New(time.Now().Add(-time.Hour))}); len(got) != len(c.Records(t)) {
		t.Errorf("since an hour ago: %q", got)
	}
}

// The last page's token follows the trail.
func TestFollowRecords(t *testing.T) {
	c := start(t, nil)
	r := &stokerv1.ListRecordsRequest{Events: []string{"admin.created"}, PageSize: 2}
	var seen []string
	read := func(end bool) {
		t.Helper()
		page := must(c.audit.ListRecords(t.Context(), r))(t)
		for _, record := range page.GetRecords() {
			seen = append(seen, record.GetTenant())
		}
		if page.GetNextPageToken() == "" || page.GetEnd() != end {
			t.Errorf("token %q, end %v, want %v", page.GetNextPageToken(), page.GetEnd(), end)
		}
		r.PageToken = page.GetNextPageToken()
	}
	read(true)
	for i := range 3 {
		c.tenant(t, fmt.Sprint("t", i))
	}
	read(false)
	read(true)
	read(true)
	c.tenant(t, "t3")
	read(true)
	if !slices.Equal(seen, []string{"t0", "t1", "t2", "t3"}) {
		t.Errorf("seen %q", seen)
	}
}

func TestWhoIs(t *testing.T) {
	now := time.Now()
	c := start(t, func(c *adminapi.Config) { c.Now = func() time.Time { return now } })
	for i, event := range []audit.Event{audit.CredentialIssued, audit.CredentialRenewed, audit.CredentialRejected} {
		c.issued(t, storage.AuditRecord{
			Event: string(event), CredentialID: fmt.Sprint("credential-", i), AccessKeyID: fmt.Sprint("ASIA", i), SessionName: "s.1",
			TenantID: "id", Tenant: "acme", Login: "nightly", Agent: "server-1", Grant: "photos", PolicyHash: "ff", Expires: now.Add(time.Hour),
		})
	}
	who := func(r *stokerv1.WhoIsRequest) *stokerv1.AuditRecord {
		return must(c.audit.WhoIs(t.Context(), r))(t).GetRecord()
	}
	for name, found := range map[string]struct{ got, want string }{
		"access key":      {who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: "ASIA0"}}).GetCredentialId(), "credential-0"},
		"credential":      {who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_CredentialId{CredentialId: "credential-1"}}).GetAccessKeyId(), "ASIA1"},
		"name, the last":  {who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_SessionName{SessionName: "s.1"}}).GetCredentialId(), "credential-1"},
		"agent":           {who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_SessionName{SessionName: "s.1"}}).GetAgent(), "server-1"},
		"grant of a name": {who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_SessionName{SessionName: "s.1"}}).GetGrant(), "photos"},
	} {
		if found.got != found.want {
			t.Errorf("%s: %q, want %q", name, found.got, found.want)
		}
	}
	_, err := c.audit.WhoIs(t.Context(), &stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: "ASIA9"}})
	refused(t, err, reason.NotFound, `no credential with access_key_id "ASIA9" was issued`)
	// Years later it is found as well.
	now = now.Add(10 * 365 * 24 * time.Hour)
	if got := who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_SessionName{SessionName: "s.1"}}).GetCredentialId(); got != "credential-1" {
		t.Errorf("ten years later: %q", got)
	}
	now = now.Add(40 * 365 * 24 * time.Hour)
	if got := who(&stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: "ASIA1"}}).GetCredentialId(); got != "credential-1" {
		t.Errorf("fifty years later: %q", got)
	}
}

func TestVerify(t *testing.T) {
	var forged *audit.Report
	c := start(t, func(c *adminapi.Config) {
		whole := c.Verify
		c.Verify = func(ctx context.Context) (audit.Report, error) {
			if forged != nil {
				return *forged, nil
			}
			return whole(ctx)
		}
	})
	c.populate(t)
	report := must(c.audit.Verify(t.Context(), &stokerv1.VerifyRequest{}))(t)
	if !report.GetIntact() || len(report.GetChains()) != 1 || report.GetChains()[0].GetRecords() != int64(len(c.Records(t))) ||
		report.GetChains()[0].GetLastSequence() != report.GetChains()[0].GetRecords() || report.GetChains()[0].GetFault() != "" {
		t.Errorf("report %v", report)
	}
	forged = &audit.Report{Chains: []audit.Chain{{Writer: "w", First: 1, Last: 9, Records: 3, Faults: []audit.Fault{
		{Kind: audit.FaultAltered, Sequence: 4, Text: "its hash is another"}, {Kind: audit.FaultHeadForged, Sequence: 9, Text: "its seal is another"},
	}}}}
	report = must(c.audit.Verify(t.Context(), &stokerv1.VerifyRequest{}))(t)
	if report.GetIntact() || report.GetChains()[0].GetFaultSequence() != 4 || report.GetChains()[0].GetFault() != "altered: its hash is another; head_forged: its seal is another" {
		t.Errorf("report %v", report)
	}
}
