package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// job is a service's stream.
type job struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[stokerv1.DelegationServiceStreamCredentialsRequest, stokerv1.DelegationServiceStreamCredentialsResponse]
}

func restoreOf(tenant string) *stokerv1.Delegate {
	return &stokerv1.Delegate{Tenant: tenant, Grant: "nightly", Reason: "ticket 4711", Client: "test/1"}
}

// delegate opens a stream.
func delegate(t *testing.T, b *brokertest.Broker, cert tls.Certificate, what *stokerv1.Delegate) job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := stokerv1.NewDelegationServiceClient(b.Dial(cert)).StreamCredentials(ctx)
	if err != nil {
		t.Fatal(err)
	}
	j := job{t, stream}
	if what != nil {
		j.send(&stokerv1.DelegationServiceStreamCredentialsRequest{Message: &stokerv1.DelegationServiceStreamCredentialsRequest_Delegate{Delegate: what}})
	}
	return j
}

// send sends a message. A stream that has ended says why when it is read.
func (j job) send(m *stokerv1.DelegationServiceStreamCredentialsRequest) {
	j.t.Helper()
	if err := j.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		j.t.Fatal(err)
	}
}

// credential waits for the next one.
func (j job) credential() *stokerv1.Credential {
	j.t.Helper()
	for {
		m, err := j.stream.Recv()
		if err != nil {
			j.t.Fatal(err)
		}
		if c := m.GetCredential(); c != nil {
			return c
		}
		if m.GetProblem() != nil || m.GetRevocation() != nil {
			j.t.Fatalf("got %v", m)
		}
	}
}

// end waits for the end, and gives the revocations on the way.
func (j job) end() (revoked []*stokerv1.Revocation, err error) {
	j.t.Helper()
	for {
		m, err := j.stream.Recv()
		if err != nil {
			return revoked, err
		}
		if r := m.GetRevocation(); r != nil {
			revoked = append(revoked, r)
		}
	}
}

func TestServiceIsKeptSupplied(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, 2*time.Second)
	cert := b.IssueService("restorer")
	j := delegate(t, b, cert, restoreOf("acme"))
	welcome, err := j.stream.Recv()
	if err != nil || !strings.HasSuffix(welcome.GetWelcome().GetIdentity().GetSpiffeId(), "/service/restorer") || welcome.GetWelcome().GetIdentity().GetTenant() != "acme" {
		t.Fatalf("welcome %v, %v", welcome, err)
	}
	first := j.credential()
	if first.GetTarget().GetPrefix() != "acme/" || first.GetSecretAccessKey() == "" {
		t.Errorf("credential %v", first)
	}
	j.send(&stokerv1.DelegationServiceStreamCredentialsRequest{Message: &stokerv1.DelegationServiceStreamCredentialsRequest_Acknowledge{
		Acknowledge: &stokerv1.Acknowledge{CredentialId: first.GetId()},
	}})
	if err := j.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	second := j.credential()
	if !second.GetIssueTime().AsTime().After(first.GetIssueTime().AsTime()) {
		t.Error("the renewed credential is not newer")
	}
	streams, err := stokerv1.NewFleetServiceClient(b.Admin).ListStreams(t.Context(), &stokerv1.ListStreamsRequest{})
	if err != nil || len(streams.GetStreams()) != 1 {
		t.Fatalf("streams %v, %v", streams, err)
	}
	if s := streams.GetStreams()[0]; s.GetService() != "restorer" || s.GetReason() != "ticket 4711" || s.GetTenant() != "acme" || s.GetClient() != "test/1" {
		t.Errorf("listed as %v", s)
	}
	records := map[string]int{}
	listed, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{
		Events: []string{"delegation.opened", "credential.issued", "credential.renewed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range listed.GetRecords() {
		records[r.GetEvent()]++
		if r.GetDetail()["purpose"] != "ticket 4711" || !strings.HasSuffix(r.GetActor(), "/service/restorer") || r.GetTenant() != "acme" {
			t.Errorf("record %v", r)
		}
		if r.GetEvent() != "delegation.opened" && !strings.HasPrefix(r.GetSessionName(), "stoker-ticket-4711-") {
			t.Errorf("the session's name is %q", r.GetSessionName())
		}
	}
	if records["delegation.opened"] != 1 || records["credential.issued"] != 1 || records["credential.renewed"] < 1 {
		t.Errorf("records %v", records)
	}
}

func TestServiceResumes(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	cert := b.IssueService("restorer")
	c := delegate(t, b, cert, restoreOf("acme")).credential()
	b.Restart()
	calls := len(b.STS.Issued())
	again := restoreOf("acme")
	again.Held = &stokerv1.HeldCredential{Id: c.GetId(), Grant: "nightly", ExpireTime: c.GetExpireTime()}
	j := delegate(t, b, cert, again)
	if m, err := j.stream.Recv(); err != nil || m.GetWelcome() == nil {
		t.Fatalf("got %v, %v", m, err)
	}
	// The acceptance is silent: the list of streams shows it.
	polling.Until(t.Context(), t, "the held credential in the list of streams", func() bool {
		listed, err := stokerv1.NewFleetServiceClient(b.Admin).ListStreams(t.Context(), &stokerv1.ListStreamsRequest{})
		return err == nil && len(listed.GetStreams()) == 1 && listed.GetStreams()[0].GetGrants()[0].GetCredentialId() == c.GetId()
	})
	if now := len(b.STS.Issued()); now != calls {
		t.Errorf("%d calls to STS for a held credential", now-calls)
	}
	// For another reason it is another job, and its credential is its own.
	other := restoreOf("acme")
	other.Reason, other.Held = "ticket 4712", again.GetHeld()
	if got := delegate(t, b, cert, other).credential(); got.GetId() == c.GetId() {
		t.Error("the credential of another reason was accepted")
	}
}

func TestServiceStreamsThatAreRefused(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	b.Tenant("other")
	b.Grant(&stokerv1.Grant{Tenant: "other", Name: "nightly", Location: "main", Prefix: "other/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
	b.Grant(&stokerv1.Grant{Tenant: "acme", Name: "personal", Login: "backup", Location: "main", Prefix: "acme/p/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
	agent := b.Agent("acme", "laptop")
	for name, c := range map[string]struct {
		cert tls.Certificate
		what *stokerv1.Delegate
		want reason.Reason
	}{
		"another tenant":     {b.IssueService("restorer"), restoreOf("other"), reason.DelegationDenied},
		"an unknown tenant":  {b.IssueService("restorer"), restoreOf("nobody"), reason.DelegationDenied},
		"another access":     {b.IssueService("reader"), restoreOf("acme"), reason.DelegationDenied},
		"an unknown grant":   {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "weekly", Reason: "x"}, reason.GrantUnknown},
		"a user's own grant": {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "personal", Reason: "x"}, reason.GrantUnknown},
		"no reason":          {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "nightly"}, reason.InvalidRequest},
		"a long reason":      {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "nightly", Reason: strings.Repeat("x", 257)}, reason.InvalidRequest},
		"a hostile client":   {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "nightly", Reason: "x", Client: "a\x00"}, reason.InvalidRequest},
		"no held id":         {b.IssueService("restorer"), &stokerv1.Delegate{Tenant: "acme", Grant: "nightly", Reason: "x", Held: &stokerv1.HeldCredential{Grant: "nightly"}}, reason.InvalidRequest},
		"an unknown service": {b.IssueService("stranger"), restoreOf("acme"), reason.ServiceUnknown},
		"an agent":           {agent, restoreOf("acme"), reason.CallNotAllowed},
		"an operator":        {b.IssueOperator(brokertest.Operator), restoreOf("acme"), reason.CallNotAllowed},
		"nothing":            {b.IssueService("restorer"), nil, reason.SubscribeFirst},
	} {
		t.Run(name, func(t *testing.T) {
			j := delegate(t, b, c.cert, c.what)
			if c.what == nil {
				_ = j.stream.CloseSend()
			}
			_, err := j.end()
			wantReason(t, err, c.want)
		})
	}
	t.Run("an acknowledgement first", func(t *testing.T) {
		stream, err := stokerv1.NewDelegationServiceClient(b.Dial(b.IssueService("restorer"))).StreamCredentials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		j := job{t, stream}
		j.send(&stokerv1.DelegationServiceStreamCredentialsRequest{})
		_, err = j.end()
		wantReason(t, err, reason.SubscribeFirst)
	})
	t.Run("delegating twice", func(t *testing.T) {
		j := delegate(t, b, b.IssueService("restorer"), restoreOf("acme"))
		j.credential()
		j.send(&stokerv1.DelegationServiceStreamCredentialsRequest{Message: &stokerv1.DelegationServiceStreamCredentialsRequest_Delegate{Delegate: restoreOf("acme")}})
		_, err := j.end()
		wantReason(t, err, reason.SubscribeFirst)
	})
}

// A service is told and cut off as an agent is.
func TestServiceIsCutOff(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	configured := b.Config
	without := func(change func(*server.Config)) func() {
		return func() {
			c := configured
			c.Services = map[string]server.ServiceConfig{"restorer": configured.Services["restorer"]}
			change(&c)
			if err := b.Server.Reload(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	grants := stokerv1.NewGrantServiceClient(b.Admin)
	for _, c := range []struct {
		name string
		do   func(cert tls.Certificate)
		undo func()
		want reason.Reason
		told bool
	}{
		{"the service is removed", func(tls.Certificate) { without(func(c *server.Config) { c.Services = nil })() }, without(func(*server.Config) {}), reason.ServiceUnknown, false},
		{"the tenant is removed from the rule", func(tls.Certificate) {
			without(func(c *server.Config) {
				c.Services["restorer"] = server.ServiceConfig{Tenants: []string{"other"}, Access: []string{"backup"}}
			})()
		}, without(func(*server.Config) {}), reason.DelegationDenied, false},
		{"the access is removed from the rule", func(tls.Certificate) {
			without(func(c *server.Config) {
				c.Services["restorer"] = server.ServiceConfig{Tenants: []string{"acme"}, Access: []string{"restore"}}
			})()
		}, without(func(*server.Config) {}), reason.DelegationDenied, true},
		{"the grant is disabled", func(tls.Certificate) { disableGrant(t, grants, true) }, func() { disableGrant(t, grants, false) }, reason.GrantDisabled, true},
		{"the certificate is revoked", func(cert tls.Certificate) { revokeCertificate(t, b, agent{cert: cert}) }, func() {}, reason.CertificateRevoked, false},
		{"the tenant is disabled", func(tls.Certificate) { disableTenant(t, b, agent{tenant: "acme"}) }, nil, reason.TenantDisabled, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := b.IssueService("restorer")
			j := delegate(t, b, cert, restoreOf("acme"))
			j.credential()
			c.do(cert)
			acknowledged := time.Now()
			revoked, err := j.end()
			wantReason(t, err, c.want)
			if late := time.Since(acknowledged); late > prompt {
				t.Errorf("the stream ended %s after the acknowledgement", late)
			}
			if c.told && len(revoked) != 1 {
				t.Errorf("%d revocations before the end, want 1", len(revoked))
			}
			_, err = delegate(t, b, cert, restoreOf("acme")).end()
			wantReason(t, err, c.want)
			if c.undo != nil {
				c.undo()
			}
		})
	}
}

func disableGrant(t *testing.T, grants stokerv1.GrantServiceClient, disabled bool) {
	t.Helper()
	_, err := grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{Tenant: "acme", Name: "nightly", Disabled: disabled}, UpdateMask: mask("disabled"),
	})
	wantOK(t, err)
}
