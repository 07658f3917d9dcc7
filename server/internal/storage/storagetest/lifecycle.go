package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var lifecycleCases = map[string]func(*testing.T, Opener){
	"Ping":           one(testPing),
	"Context":        one(testContext),
	"Close":          testClose,
	"CloseEndsCalls": testCloseEndsCallsInProgress,
	"Reopen":         testReopen,
}

// everyCall names each call of the interface, with arguments that would
// succeed or fail without a trace.
func everyCall(s storage.Store) map[string]func(context.Context) error {
	p := storage.Page{Limit: 1}
	meta := storage.Meta{ID: "id", Revision: 1}
	return map[string]func(context.Context) error{
		"CreateTenant": func(ctx context.Context) error {
			return result(s.CreateTenant(ctx, storage.Tenant{Meta: meta, Name: "n"}))
		},
		"GetTenant":   func(ctx context.Context) error { return result(s.GetTenant(ctx, "id")) },
		"ListTenants": func(ctx context.Context) error { return result(s.ListTenants(ctx, p)) },
		"UpdateTenant": func(ctx context.Context) error {
			return result(s.UpdateTenant(ctx, storage.Tenant{Meta: meta, Name: "n"}))
		},
		"DeleteTenant":   func(ctx context.Context) error { return s.DeleteTenant(ctx, "id", 0) },
		"CreateUser":     func(ctx context.Context) error { return result(s.CreateUser(ctx, storage.User{Meta: meta})) },
		"GetUser":        func(ctx context.Context) error { return result(s.GetUser(ctx, "id")) },
		"ListUsers":      func(ctx context.Context) error { return result(s.ListUsers(ctx, "id", p)) },
		"UpdateUser":     func(ctx context.Context) error { return result(s.UpdateUser(ctx, storage.User{Meta: meta})) },
		"DeleteUser":     func(ctx context.Context) error { return s.DeleteUser(ctx, "id", 0) },
		"CreateAgent":    func(ctx context.Context) error { return result(s.CreateAgent(ctx, storage.Agent{Meta: meta})) },
		"GetAgent":       func(ctx context.Context) error { return result(s.GetAgent(ctx, "id")) },
		"ListAgents":     func(ctx context.Context) error { return result(s.ListAgents(ctx, "id", p)) },
		"UpdateAgent":    func(ctx context.Context) error { return result(s.UpdateAgent(ctx, storage.Agent{Meta: meta})) },
		"DeleteAgent":    func(ctx context.Context) error { return s.DeleteAgent(ctx, "id", 0) },
		"CreateLocation": func(ctx context.Context) error { return result(s.CreateLocation(ctx, storage.Location{Meta: meta})) },
		"GetLocation":    func(ctx context.Context) error { return result(s.GetLocation(ctx, "id")) },
		"ListLocations":  func(ctx context.Context) error { return result(s.ListLocations(ctx, p)) },
		"UpdateLocation": func(ctx context.Context) error { return result(s.UpdateLocation(ctx, storage.Location{Meta: meta})) },
		"DeleteLocation": func(ctx context.Context) error { return s.DeleteLocation(ctx, "id", 0) },
		"CreateGrant":    func(ctx context.Context) error { return result(s.CreateGrant(ctx, storage.Grant{Meta: meta})) },
		"GetGrant":       func(ctx context.Context) error { return result(s.GetGrant(ctx, "id")) },
		"ListGrants":     func(ctx context.Context) error { return result(s.ListGrants(ctx, "id", p)) },
		"UpdateGrant":    func(ctx context.Context) error { return result(s.UpdateGrant(ctx, storage.Grant{Meta: meta})) },
		"DeleteGrant":    func(ctx context.Context) error { return s.DeleteGrant(ctx, "id", 0) },
		"RecordCertificate": func(ctx context.Context) error {
			return result(s.RecordCertificate(ctx, storage.Certificate{Meta: meta}))
		},
		"GetCertificate": func(ctx context.Context) error { return result(s.GetCertificate(ctx, "id")) },
		"CertificatesOf": func(ctx context.Context) error { return result(s.CertificatesOf(ctx, "id")) },
		"RevokeCertificate": func(ctx context.Context) error {
			return result(s.RevokeCertificate(ctx, storage.Certificate{Serial: "s"}))
		},
		"EndSession":      func(ctx context.Context) error { return s.EndSession(ctx, storage.EndedSession{ID: "id"}) },
		"GetEndedSession": func(ctx context.Context) error { return result(s.GetEndedSession(ctx, "id")) },
		"SweepSessions":   func(ctx context.Context) error { return result(s.SweepSessions(ctx, time.Time{})) },
		"AddKey":          func(ctx context.Context) error { return result(s.AddKey(ctx, storage.SealedKey{Meta: meta}, "")) },
		"ListKeys":        func(ctx context.Context) error { return result(s.ListKeys(ctx, "p")) },
		"DeleteKey":       func(ctx context.Context) error { return s.DeleteKey(ctx, "id") },
		"CreateJoinToken": func(ctx context.Context) error { return s.CreateJoinToken(ctx, storage.JoinToken{ID: "id"}) },
		"GetJoinToken":    func(ctx context.Context) error { return result(s.GetJoinToken(ctx, "id")) },
		"UseJoinToken":    func(ctx context.Context) error { return s.UseJoinToken(ctx, "id", time.Now()) },
		"SweepJoinTokens": func(ctx context.Context) error { return result(s.SweepJoinTokens(ctx, time.Time{})) },
		"CreateRevocation": func(ctx context.Context) error {
			return result(s.CreateRevocation(ctx, storage.Revocation{Meta: meta}))
		},
		"GetRevocation":   func(ctx context.Context) error { return result(s.GetRevocation(ctx, "id")) },
		"ListRevocations": func(ctx context.Context) error { return result(s.ListRevocations(ctx, true, p)) },
		"UpdateRevocation": func(ctx context.Context) error {
			return result(s.UpdateRevocation(ctx, storage.Revocation{Meta: meta}))
		},
		"Load":        func(ctx context.Context) error { return result(s.Load(ctx)) },
		"Head":        func(ctx context.Context) error { return result(s.Head(ctx)) },
		"Changes":     func(ctx context.Context) error { return result(s.Changes(ctx, 0, 1)) },
		"AppendAudit": func(ctx context.Context) error { return tryAppend(ctx, s, chain("w", 1, 1)) },
		"ListAudit": func(ctx context.Context) error {
			return result(s.ListAudit(ctx, storage.AuditFilter{}, nil, 1))
		},
		"AuditChain": func(ctx context.Context) error { return result(s.AuditChain(ctx, "w", 1, 1)) },
		"AuditHeads": func(ctx context.Context) error { return result(s.AuditHeads(ctx)) },
		"FindIssue":  func(ctx context.Context) error { return result(s.FindIssue(ctx, "c")) },
		"TrimAudit":  func(ctx context.Context) error { return s.TrimAudit(ctx, storage.AuditHead{Writer: "w"}) },
		"Ping":       s.Ping,
	}
}

func testPing(t *testing.T, s storage.Store) {
	told(t, s, func() {
		noError(t, s.Ping(t.Context()))
		noError(t, s.Ping(t.Context()))
	})
}

func testContext(t *testing.T, s storage.Store) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	unchanged(t, s, func() {
		told(t, s, func() {
			for name, call := range everyCall(s) {
				for ctx, want := range map[context.Context]error{cancelled: context.Canceled, expired: context.DeadlineExceeded} {
					if err := call(ctx); !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", name, err, want)
					}
				}
			}
		})
	})

	// A context that ends in the middle takes everything back.
	ctx, cancel := context.WithCancel(t.Context())
	err := s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) {
		cancel()
		return chain("w", 1, 1), nil
	})
	wantError(t, err, context.Canceled)
	if errors.Is(err, storage.ErrInDoubt) {
		t.Errorf("nothing was sent, and still: %v", err)
	}
	appendBatch(t, s, chain("w", 1, 1))
}

func testClose(t *testing.T, open Opener) {
	s := open(t, Options{})
	noError(t, s.Close())
	noError(t, s.Close())
	for name, call := range everyCall(s) {
		if err := call(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", name, err, storage.ErrUnavailable)
		}
	}
}

func testCloseEndsCallsInProgress(t *testing.T, open Opener) {
	s := open(t, Options{})
	ctx := t.Context()
	building, waiting, closed := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	go func() {
		<-building
		waiting <- result(s.CreateTenant(ctx, storage.Tenant{Meta: storage.Meta{ID: "id"}, Name: "waits"}))
	}()
	err := s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) {
		close(building)
		go func() { closed <- s.Close() }()
		deadline := time.Now().Add(patience)
		for result(s.Watch(ctx)) == nil { // until the store is closing
			if time.Now().After(deadline) {
				return storage.AuditBatch{}, errors.New("the store does not close")
			}
		}
		return chain("w", 1, 1), nil
	})
	wantError(t, err, storage.ErrUnavailable)
	wantError(t, <-waiting, storage.ErrUnavailable)
	noError(t, <-closed)

	s = start(t, open)
	if records := listAll(t, s); len(records) != 0 {
		t.Errorf("stored without being acknowledged: %v", records)
	}
	if page := must[[]storage.Tenant](t)(s.ListTenants(ctx, storage.Page{Limit: 1})); len(page) != 0 {
		t.Errorf("stored without being acknowledged: %v", page)
	}
}

func testReopen(t *testing.T, open Opener) {
	s := open(t, Options{})
	Fill(t, s)
	contents := Read(t, s)
	noError(t, s.Close())
	for range 2 {
		s = open(t, Options{})
		same(t, "contents", Read(t, s), contents)
		noError(t, s.Close())
	}
	s = start(t, open)
	told(t, s, func() {
		_, err := s.CreateTenant(t.Context(), storage.Tenant{Meta: storage.Meta{ID: "next"}, Name: "next"})
		noError(t, err)
	}, storage.Change{Kind: storage.KindTenant, ID: "next"})
}
