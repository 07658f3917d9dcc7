package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// fewStreams are of acme and borg, the latest first.
func fewStreams() []adminapi.Stream {
	base := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var streams []adminapi.Stream
	for i := range 6 {
		tenant := []string{"acme", "borg"}[i%2]
		streams = append(streams, adminapi.Stream{
			ID: fmt.Sprint("stream-", i), Tenant: tenant, Agent: fmt.Sprint("server-", i/2), Login: "nightly",
			// Two at a time have one moment.
			Opened: base.Add(time.Duration(-i/2) * time.Minute), Peer: "192.0.2.1:1", Client: "test/1", CertificateSerial: "ab",
			Grants:  []adminapi.StreamGrant{{Grant: "photos", CredentialID: "c", Expires: base, Acknowledged: base}, {Grant: "music"}},
			Pending: 3,
		})
	}
	return streams
}

func TestListStreams(t *testing.T) {
	c := start(t, func(c *adminapi.Config) { c.Streams = fewStreams })
	c.tenant(t, "acme")
	list := func(r *stokerv1.ListStreamsRequest) []string {
		return streamIDs(must(c.fleet.ListStreams(t.Context(), r))(t))
	}
	if got := list(&stokerv1.ListStreamsRequest{}); !slices.Equal(got, []string{"stream-4", "stream-5", "stream-2", "stream-3", "stream-0", "stream-1"}) {
		t.Errorf("oldest first: %q", got)
	}
	if got := list(&stokerv1.ListStreamsRequest{Tenant: "acme"}); !slices.Equal(got, []string{"stream-4", "stream-2", "stream-0"}) {
		t.Errorf("acme's: %q", got)
	}
	if got := list(&stokerv1.ListStreamsRequest{Tenant: "acme", Agent: "server-1"}); !slices.Equal(got, []string{"stream-2"}) {
		t.Errorf("one agent's: %q", got)
	}
	s := must(c.fleet.ListStreams(t.Context(), &stokerv1.ListStreamsRequest{PageSize: 1}))(t).GetStreams()[0]
	if s.GetLogin() != "nightly" || s.GetPeer() == "" || s.GetClient() != "test/1" || s.GetCertificateSerial() != "ab" || s.GetPending() != 3 ||
		len(s.GetGrants()) != 2 || s.GetGrants()[0].GetCredentialId() != "c" || s.GetGrants()[0].GetExpireTime() == nil || s.GetGrants()[1].GetAcknowledgeTime() != nil {
		t.Errorf("a stream shows as %v", s)
	}
}

// issued writes the record of an issue as the lease manager does.
func (c clients) issued(t *testing.T, r storage.AuditRecord) storage.AuditRecord {
	t.Helper()
	if r.Event == "" {
		r.Event = string(audit.CredentialIssued)
	}
	return must(c.Trail.Append(t.Context(), r, audit.NoFence))(t)
}

func TestRevoke(t *testing.T) {
	var c clients
	c = start(t, func(config *adminapi.Config) {
		config.Streams = func() []adminapi.Stream {
			tenant, _ := c.Directory.TenantByName("acme")
			user, _ := c.Directory.UserByLogin(tenant.ID, "nightly")
			agent, _ := c.Directory.AgentByName(tenant.ID, "server-1")
			return []adminapi.Stream{
				{ID: "1", TenantID: tenant.ID, UserID: user.ID, AgentID: agent.ID, CertificateSerial: "ab12"},
				{ID: "2", TenantID: tenant.ID, UserID: "another", AgentID: "another", CertificateSerial: "cd"},
				{ID: "3", TenantID: "another", UserID: "third", AgentID: "third"},
			}
		}
	})
	c.populate(t)
	c.location(t, "brief", func(l *stokerv1.Location) { l.Account, l.Bucket = "short", "brief" })
	c.grant(t, "acme", "brief", func(g *stokerv1.Grant) { g.Location, g.Login = "brief", "nightly" })
	credential := uuid.Must(uuid.NewV7()).String()
	tenant := mustTenant(t, c, "acme")
	c.issued(t, storage.AuditRecord{
		CredentialID: credential, TenantID: tenant, Tenant: "acme", Agent: "server-1", Account: "short", SessionName: "s.1",
		Expires: time.Now().Add(10 * time.Minute),
	})
	disabled := map[string]func() bool{
		"tenant": func() bool { v, _ := c.Directory.TenantByName("acme"); return v.Disabled },
		"user":   func() bool { v, _ := c.Directory.UserByLogin(tenant, "nightly"); return v.Disabled },
		"agent":  func() bool { v, _ := c.Directory.AgentByName(tenant, "server-1"); return v.Disabled },
		"grant":  func() bool { v, _ := c.Directory.GrantByName(tenant, "photos"); return v.Disabled },
		"certificate": func() bool {
			why, revoked := c.Directory.CertificateRevoked("ab12")
			return revoked && why == "stolen laptop"
		},
		"credential": func() bool {
			return slices.ContainsFunc(c.Directory.Revocations(), func(r storage.Revocation) bool {
				return r.TargetID == credential && r.SessionName == "s.1" && r.TenantID == tenant
			})
		},
	}
	for _, target := range []struct {
		kind     string
		request  *stokerv1.RevokeRequest
		name     string
		accounts []string
		longest  time.Duration
		ended    int32
	}{
		{"credential", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: credential}}, credential, []string{"short"}, 10 * time.Minute, 0},
		{"certificate", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: "AB:12"}}, "ab12", []string{""}, 0, 1},
		{"grant", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: "acme/photos"}}, "acme/photos", []string{"main"}, 12 * time.Hour, 0},
		{"agent", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: "acme/server-1"}}, "acme/server-1", []string{"main", "short"}, 12 * time.Hour, 1},
		{"user", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: "Nightly@acme"}}, "nightly@acme", []string{"main", "short"}, 12 * time.Hour, 1},
		{"tenant", &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}}, "acme", []string{"main", "short"}, 12 * time.Hour, 2},
	} {
		t.Run(target.kind, func(t *testing.T) {
			target.request.Reason, target.request.DryRun = "stolen laptop", true
			head, records := must(c.Store.Head(t.Context()))(t), len(c.Records(t))
			plan := must(c.fleet.Revoke(t.Context(), target.request))(t)
			if now := must(c.Store.Head(t.Context()))(t); now != head || len(c.Records(t)) != records || disabled[target.kind]() {
				t.Error("the dry run did something")
			}
			target.request.DryRun = false
			answer := must(c.fleet.Revoke(t.Context(), target.request))(t)
			if !disabled[target.kind]() {
				t.Error("the revocation was answered and is not in force")
			}
			if plan.GetStreamsEnded() != target.ended || answer.GetStreamsEnded() != target.ended || len(plan.GetRevocations()) != len(answer.GetRevocations()) {
				t.Errorf("planned %v, did %v", plan, answer)
			}
			var accounts []string
			for _, r := range answer.GetRevocations() {
				accounts = append(accounts, r.GetAccount())
				if r.GetTarget() != target.name || r.GetTargetKind() != target.kind || r.GetOperator() != "ann" || r.GetReason() != "stolen laptop" ||
					r.GetState() != stokerv1.RevocationState_REVOCATION_STATE_LOCAL || r.GetBeforeTime() == nil {
					t.Errorf("revocation %v", r)
				}
			}
			if !slices.Equal(accounts, target.accounts) {
				t.Errorf("accounts %q, want %q", accounts, target.accounts)
			}
			if target.longest > 0 {
				until := time.Until(answer.GetRevocations()[0].GetUntilTime().AsTime())
				if until > target.longest || until < target.longest-time.Minute {
					t.Errorf("until %v from now, want %v", until, target.longest)
				}
			}
			newest := must(c.fleet.ListRevocations(t.Context(), &stokerv1.ListRevocationsRequest{PageSize: 1}))(t).GetRevocations()[0]
			if newest.GetTarget() != target.name {
				t.Errorf("the newest revocation is %v", newest)
			}
			trail := c.Records(t)
			end := trail[len(trail)-1]
			if end.Event != string(audit.RevocationCreated) || end.Detail["reason"] != "stolen laptop" || end.Detail["kind"] != target.kind || end.Detail["name"] != target.name {
				t.Errorf("the trail ends with %+v", end)
			}
		})
	}
	if got := c.changes(t); !slices.ContainsFunc(got, func(s string) bool {
		return s == "admin.updated kind=tenant name=acme new.disabled=true old.disabled=false reason=stolen laptop"
	}) {
		t.Errorf("the trail does not say why the tenant was disabled:\n%s", strings.Join(got, "\n"))
	}
}

func TestRevokeIsRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	ended := uuid.Must(uuid.NewV7()).String()
	c.issued(t, storage.AuditRecord{CredentialID: ended, Expires: time.Now().Add(-time.Minute)})
	_, err := c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: ended}, Reason: "r"})
	refused(t, err, reason.InvalidRequest, "ended by itself")
	_, err = c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{
		Target: &stokerv1.RevokeRequest_Credential{Credential: uuid.NewString()}, Reason: "r"})
	refused(t, err, reason.NotFound, "there is no credential")
}

// Revoking what is revoked already is not an error: credentials may have been
// issued in between, by hand enabled.
func TestRevokeAgain(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for range 2 {
		answer := must(c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: "0A"}, Reason: "r"}))(t)
		if len(answer.GetRevocations()) != 1 {
			t.Errorf("%v", answer)
		}
		must(c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}, Reason: "r"}))(t)
	}
}
