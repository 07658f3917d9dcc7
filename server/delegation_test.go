package server_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// reasonOf gives the reason in an answer's status, or "".
func reasonOf(err error) string { return string(apierr.Reason(status.Convert(err))) }

func withServices(c *server.Config) {
	c.Services = map[string]server.ServiceConfig{
		"restorer": {Tenants: []string{"acme"}, Access: []string{"backup"}},
		"reader":   {Tenants: []string{"*"}, Access: []string{"restore"}},
	}
}

func TestServiceGetsCredentialsByItsRule(t *testing.T) {
	b, _ := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	b.Tenant("other")
	b.Grant(&stokerv1.Grant{Tenant: "other", Name: "nightly", Location: "main", Prefix: "other/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
	restorer := stokerv1.NewDelegationServiceClient(b.Dial(b.IssueService("restorer")))
	got, err := restorer.IssueCredentials(t.Context(), &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "ticket 4711"})
	if err != nil {
		t.Fatal(err)
	}
	c := got.GetCredential()
	if c.GetSecretAccessKey() == "" || c.GetTarget().GetPrefix() != "acme/" || c.GetGrant() != "nightly" {
		t.Errorf("credential %v", c)
	}
	recs, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{Events: []string{"delegation.issued"}})
	if err != nil || len(recs.GetRecords()) != 1 {
		t.Fatalf("%d records, %v", len(recs.GetRecords()), err)
	}
	rec := recs.GetRecords()[0]
	if rec.GetDetail()["purpose"] != "ticket 4711" || rec.GetCredentialId() != c.GetId() || !strings.HasSuffix(rec.GetActor(), "/service/restorer") {
		t.Errorf("record %v", rec)
	}

	for name, c := range map[string]struct {
		service string
		req     *stokerv1.IssueCredentialsRequest
		want    string
	}{
		"another tenant":     {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "other", Grant: "nightly", Reason: "x"}, "DELEGATION_DENIED"},
		"an unknown tenant":  {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "nobody", Grant: "nightly", Reason: "x"}, "DELEGATION_DENIED"},
		"an unknown grant":   {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "weekly", Reason: "x"}, "GRANT_UNKNOWN"},
		"another access":     {"reader", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "x"}, "DELEGATION_DENIED"},
		"no tenant for all":  {"reader", &stokerv1.IssueCredentialsRequest{Tenant: "nobody", Grant: "nightly", Reason: "x"}, "TENANT_UNKNOWN"},
		"no reason":          {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: " "}, "INVALID_REQUEST"},
		"a long reason":      {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: strings.Repeat("x", 257)}, "INVALID_REQUEST"},
		"a hostile reason":   {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "a\nb"}, "INVALID_REQUEST"},
		"a negative minimum": {"restorer", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "x", MinLife: durationpb.New(-1)}, "INVALID_REQUEST"},
		"an unknown service": {"stranger", &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "x"}, "SERVICE_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := stokerv1.NewDelegationServiceClient(b.Dial(b.IssueService(c.service))).IssueCredentials(t.Context(), c.req)
			if reasonOf(err) != c.want || got.GetCredential() != nil {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestIntrospectSession(t *testing.T) {
	b, password := acme(t, brokertest.Options{Configure: withServices}, time.Hour)
	agent := b.Dial(b.Agent("acme", "laptop"))
	session, err := stokerv1.NewSessionServiceClient(agent).CreateSession(brokertest.Basic(t.Context(), "backup@acme", password), &stokerv1.CreateSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	service := stokerv1.NewDelegationServiceClient(b.Dial(b.IssueService("reader")))
	ask := func(token string) *stokerv1.IntrospectSessionResponse {
		t.Helper()
		answer, err := service.IntrospectSession(t.Context(), &stokerv1.IntrospectSessionRequest{AccessToken: token})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	good := ask(session.GetAccessToken())
	if !good.GetActive() || good.GetIdentity().GetLogin() != "backup" || good.GetIdentity().GetTenant() != "acme" || len(good.GetCertificateThumbprint()) != 64 {
		t.Errorf("a good token: %v", good)
	}
	if bad := ask(session.GetAccessToken() + "x"); bad.GetActive() || bad.GetInactiveReason() != "TOKEN_INVALID" || bad.GetIdentity() != nil {
		t.Errorf("a bad token: %v", bad)
	}
	if _, err := stokerv1.NewSessionServiceClient(agent).DeleteSession(brokertest.Bearer(t.Context(), session.GetAccessToken()), &stokerv1.DeleteSessionRequest{}); err != nil {
		t.Fatal(err)
	}
	if ended := ask(session.GetAccessToken()); ended.GetActive() || ended.GetInactiveReason() != "SESSION_ENDED" {
		t.Errorf("an ended session: %v", ended)
	}
}
