package adminapi

import (
	"context"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/doctor"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Doctor checks what the broker leans on.
type Doctor interface {
	Examine(ctx context.Context) ([]doctor.Finding, error)
	// Try has a credential issued for the grant, and tries it. The record says
	// who asked.
	Try(ctx context.Context, record storage.AuditRecord, tenant storage.Tenant, g storage.Grant) ([]doctor.Finding, error)
}

var severities = map[doctor.Severity]stokerv1.FindingSeverity{
	doctor.OK: stokerv1.FindingSeverity_FINDING_SEVERITY_OK, doctor.Note: stokerv1.FindingSeverity_FINDING_SEVERITY_NOTE,
	doctor.Warning: stokerv1.FindingSeverity_FINDING_SEVERITY_WARNING, doctor.Fatal: stokerv1.FindingSeverity_FINDING_SEVERITY_FATAL,
}

// Diagnose implements stokerv1.FleetServiceServer.
func (s fleet) Diagnose(ctx context.Context, r *stokerv1.DiagnoseRequest) (*stokerv1.DiagnoseResponse, error) {
	var tenant storage.Tenant
	var grant storage.Grant
	var err error
	tries := r.GetGrant() != "" || r.GetTenant() != ""
	if tries {
		if tenant, err = s.tenant(ctx, "tenant", r.GetTenant()); err != nil {
			return nil, err
		}
		if grant, err = s.findGrant(tenant, "grant", r.GetGrant()); err != nil {
			return nil, err
		}
	}
	select {
	case s.diagnosing <- struct{}{}:
		defer func() { <-s.diagnosing }()
	default:
		return nil, reason.New(reason.RateLimited, "another diagnosis is being made on this replica; wait for it").After(crowded)
	}
	found, err := s.Doctor.Examine(ctx)
	if err != nil {
		return nil, err
	}
	if tries {
		tried, err := s.Doctor.Try(ctx, s.record(ctx, audit.AccountTried), tenant, grant)
		if err != nil {
			return nil, err
		}
		found = append(found, tried...)
	}
	answer := &stokerv1.DiagnoseResponse{Time: message.Time(s.Now())}
	for _, f := range found {
		answer.Findings = append(answer.Findings, &stokerv1.Finding{Severity: severities[f.Severity], Subject: f.Subject, Message: f.Message})
	}
	return answer, nil
}
