package adminapi_test

import (
	"context"
	"testing"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/doctor"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// fakeDoctor finds one thing of each severity, and notes what it is to try.
type fakeDoctor struct {
	tried   []string
	enter   chan struct{} // nil: nobody is waited for
	proceed chan struct{}
	fails   error
}

func (f *fakeDoctor) Examine(context.Context) ([]doctor.Finding, error) {
	if f.enter != nil {
		f.enter <- struct{}{}
		<-f.proceed
	}
	return []doctor.Finding{{Severity: doctor.OK, Subject: "storage", Message: "works"}, {Severity: doctor.Note, Subject: "a", Message: "n"}, {Severity: doctor.Warning, Subject: "b", Message: "w"}}, nil
}

func (f *fakeDoctor) Try(_ context.Context, r storage.AuditRecord, t storage.Tenant, g storage.Grant) ([]doctor.Finding, error) {
	f.tried = append(f.tried, r.Actor+" "+r.RequestID[:8]+" "+t.Name+"/"+g.Name)
	return []doctor.Finding{{Severity: doctor.Fatal, Subject: "grant", Message: "open"}}, f.fails
}

func TestDiagnose(t *testing.T) {
	f := &fakeDoctor{}
	c := start(t, func(c *adminapi.Config) { c.Doctor = f })
	c.populate(t)
	found := must(c.fleet.Diagnose(t.Context(), &stokerv1.DiagnoseRequest{}))(t)
	if len(found.GetFindings()) != 3 || found.GetTime() == nil || len(f.tried) > 0 ||
		found.GetFindings()[0].GetSeverity() != stokerv1.FindingSeverity_FINDING_SEVERITY_OK || found.GetFindings()[0].GetSubject() != "storage" || found.GetFindings()[0].GetMessage() != "works" {
		t.Errorf("found %v", found)
	}
	found = must(c.fleet.Diagnose(t.Context(), &stokerv1.DiagnoseRequest{Tenant: "acme", Grant: "photos"}))(t)
	if n := len(found.GetFindings()); n != 4 || found.GetFindings()[3].GetSeverity() != stokerv1.FindingSeverity_FINDING_SEVERITY_FATAL {
		t.Errorf("found %v", found)
	}
	if want := "spiffe://backup.example/operator/" + admintest.Admin + " request- acme/photos"; len(f.tried) != 1 || f.tried[0] != want {
		t.Errorf("tried %q, want %q", f.tried, want)
	}
}

func TestDiagnoseRefuses(t *testing.T) {
	f := &fakeDoctor{fails: reason.New(reason.AuditUnavailable, "away")}
	c := start(t, func(c *adminapi.Config) { c.Doctor = f })
	c.populate(t)
	diagnose := func(tenant, grant string) error {
		_, err := c.fleet.Diagnose(t.Context(), &stokerv1.DiagnoseRequest{Tenant: tenant, Grant: grant})
		return err
	}
	refused(t, diagnose("acme", ""), reason.InvalidRequest, "grant is missing")
	refused(t, diagnose("", "photos"), reason.InvalidRequest, "tenant is missing")
	refused(t, diagnose("acme", "music"), reason.NotFound, `there is no grant "acme/music"`)
	refused(t, diagnose("borg", "photos"), reason.NotFound, `there is no grant "borg/photos"`)
	refused(t, diagnose("acme", "photos"), reason.AuditUnavailable, "away")
}

// Diagnoses ask STS and S3: one at a time is enough.
func TestOneDiagnosisAtATime(t *testing.T) {
	f := &fakeDoctor{enter: make(chan struct{}), proceed: make(chan struct{})}
	c := start(t, func(c *adminapi.Config) { c.Doctor = f })
	first := make(chan error, 1)
	go func() {
		_, err := c.fleet.Diagnose(t.Context(), &stokerv1.DiagnoseRequest{})
		first <- err
	}()
	<-f.enter
	_, err := c.fleet.Diagnose(t.Context(), &stokerv1.DiagnoseRequest{})
	refused(t, err, reason.RateLimited, "another diagnosis is being made")
	close(f.proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
