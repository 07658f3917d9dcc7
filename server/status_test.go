package server_test

import (
	"strings"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
	"github.com/stokerd/stoker/server/internal/reason"
)

func statusOf(t *testing.T, b *brokertest.Broker) *stokerv1.GetStatusResponse {
	t.Helper()
	s, err := stokerv1.NewFleetServiceClient(b.Admin).GetStatus(t.Context(), &stokerv1.GetStatusRequest{})
	wantOK(t, err)
	return s
}

func TestStatusOfABroker(t *testing.T) {
	b := site(t, brokertest.Options{})
	acme := join(t, b, "acme", time.Hour)
	subscribe(t, acme).credential()
	s := statusOf(t, b)
	if !s.GetReady() || s.GetProblem() != "" || s.GetVersion() == "" || s.GetStreams() != 1 || s.GetLeases() != 1 || s.GetLeasesDry() != 0 ||
		s.GetIssuedLastMinute() != 1 || s.GetDrySoonTotal() != 0 || s.GetExpiringTotal() != 0 {
		t.Errorf("status %v", s)
	}
	if left := s.GetEmptiest().AsDuration(); left < 59*time.Minute || left > time.Hour {
		t.Errorf("%v left", left)
	}
	if r := s.GetReplicas(); len(r) != 1 || !r[0].GetAnswering() {
		t.Errorf("replicas %v", r)
	}
	if a := s.GetAccounts(); len(a) != 1 || a[0].GetName() != "main" || a[0].GetMethod() != "federation_token" || a[0].GetDown() || a[0].GetLimit() != 1000 {
		t.Errorf("accounts %v", a)
	}
	if c := s.GetCertificates(); len(c) != 2 || c[0].GetPart() != "server certificate" || c[0].GetExpireTime() == nil || c[0].GetProblem() != "" {
		t.Errorf("certificates %v", c)
	}

	// An STS that refuses leaves the next tenant dry, and the status names it.
	wantOK(t, b.STS.Inject(devsts.Fault{Kind: devsts.Deny}))
	other := join(t, b, "other", time.Hour)
	subscribe(t, other).problem(reason.STSRefused)
	s = statusOf(t, b)
	if dry := s.GetDrySoon(); len(dry) != 1 || dry[0].GetTenant() != "other" || dry[0].GetAgent() != "laptop" || dry[0].GetProblem() != "STS_REFUSED" || s.GetLeasesDry() != 1 {
		t.Errorf("dry soon: %v, %d dry", dry, s.GetLeasesDry())
	}
	// After a restart it is another broker, and the old one has said goodbye.
	b.STS.ClearFaults()
	b.Restart()
	b.Admin = b.Dial(b.IssueOperator(brokertest.Operator))
	if r := statusOf(t, b).GetReplicas(); len(r) != 1 || r[0].GetWriter() == s.GetReplicas()[0].GetWriter() {
		t.Errorf("replicas after the restart: %v, before %v", r, s.GetReplicas())
	}
}

// The local STS answers listings as S3 does, by the session policy.
func TestDiagnosisOfABroker(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{})
	b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket", Endpoint: b.STS.URL()})
	acme := join(t, b, "acme", time.Hour)
	acme.works(t)
	before := b.STS.Calls()["GetFederationToken"]
	found, err := stokerv1.NewFleetServiceClient(b.Admin).Diagnose(t.Context(), &stokerv1.DiagnoseRequest{Tenant: "acme", Grant: "nightly"})
	wantOK(t, err)
	var lines []string
	for _, f := range found.GetFindings() {
		lines = append(lines, f.GetSeverity().String()+" "+f.GetSubject()+": "+f.GetMessage())
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{
		"OK storage: works", "OK audit trail: works", "OK change feed: works", "OK server certificate: in force", "NOTE account main: calls STS as",
		"OK grant acme/nightly: the STS issues for it", `OK grant acme/nightly: its credential lists the keys under "acme/"`,
		`OK grant acme/nightly: its credential lists nothing outside of "acme/"`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among\n%s", want, all)
		}
	}
	if strings.Contains(all, "FATAL") {
		t.Errorf("found\n%s", all)
	}
	if calls := b.STS.Calls()["GetFederationToken"] - before; calls != 1 {
		t.Errorf("%d credentials were issued", calls)
	}
	tried, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{Events: []string{"account.tried"}})
	wantOK(t, err)
	if r := tried.GetRecords(); len(r) != 1 || r[0].GetTenant() != "acme" || !strings.HasPrefix(r[0].GetSessionName(), "stoker-try-") ||
		r[0].GetActor() != "spiffe://test.example/operator/root" {
		t.Errorf("records %v", r)
	}
}
