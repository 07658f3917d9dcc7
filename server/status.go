package server

import (
	"context"
	"slices"

	"github.com/stokerd/stoker/internal/version"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/doctor"
)

// status measures this replica for operators.
func (s *Server) status(ctx context.Context) (adminapi.Status, error) {
	brokers, err := s.watcher.Brokers(ctx)
	if err != nil {
		return adminapi.Status{}, err
	}
	status := adminapi.Status{
		Version: version.String(), Started: s.started, Problem: s.ready.Problem(), Writer: s.trail.Writer(), Brokers: brokers,
		Leases: s.leases.Stats(), Supplies: slices.Collect(s.leases.Leases()), Accounts: map[string]adminapi.Account{},
		Certificates: slices.Clone(s.reloader.Status()), Revocations: s.directory.Revocations(),
	}
	status.Issued, status.Renewed = s.pulse.minute()
	for name, sts := range s.issuers {
		a := sts.Account()
		status.Accounts[name] = adminapi.Account{Method: string(a.Method), Region: a.Region}
	}
	return status, nil
}

// physician checks what this replica leans on.
func (s *Server) physician() *doctor.Doctor {
	accounts := make(map[string]doctor.Account, len(s.issuers))
	for name, sts := range s.issuers {
		a := sts.Account()
		accounts[name] = doctor.Account{Issuer: sts, Check: sts.Check, Keys: sts.Keys(), Endpoint: a.Endpoint, Lifetime: a.MinLifetime}
	}
	var conditions []doctor.Condition
	for _, c := range s.conditions() {
		conditions = append(conditions, doctor.Condition{Name: c.name, Test: c.test})
	}
	return doctor.New(doctor.Config{
		Conditions: conditions, Certificates: s.reloader.Status, Accounts: accounts, Directory: s.directory, Trail: s.trail,
	})
}

// conditions are what nothing can be issued without.
func (s *Server) conditions() []condition {
	return []condition{
		{"storage", s.store.Ping},
		{"audit trail", func(context.Context) error { return s.trail.Healthy() }},
		{"change feed", func(context.Context) error { return s.directory.Behind() }},
	}
}
