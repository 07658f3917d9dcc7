package server_test

import (
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// acme starts a broker with one tenant, user, agent, location and grant.
func acme(t *testing.T, o brokertest.Options, lifetime time.Duration) (b *brokertest.Broker, password string) {
	t.Helper()
	b = brokertest.Start(t, o)
	b.Tenant("acme")
	password = b.User("acme", "backup")
	b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	b.Grant(&stokerv1.Grant{Tenant: "acme", Name: "nightly", Location: "main", Prefix: "acme/", Access: stokerv1.Access_ACCESS_BACKUP}, lifetime)
	return b, password
}

func TestStreamIssuesRenewsAndKeepsPushingAfterHalfClose(t *testing.T) {
	b, password := acme(t, brokertest.Options{}, 3*time.Second)
	agents := stokerv1.NewCredentialServiceClient(b.Dial(b.Agent("acme", "laptop")))
	stream, err := agents.StreamCredentials(brokertest.Basic(t.Context(), "backup@acme", password))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetWelcome().GetIdentity().GetLogin() != "backup" {
		t.Fatalf("welcome %v, %v", first, err)
	}
	var last time.Time
	for range 3 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		c := m.GetCredential()
		if c == nil || c.GetGrant() != "nightly" || !c.GetIssueTime().AsTime().After(last) || c.GetTarget().GetPrefix() != "acme/" {
			t.Fatalf("got %v after %v", m, last)
		}
		last = c.GetIssueTime().AsTime()
	}
}

// Every call that is registered has a rule, and every rule a call: a call
// without one would serve nobody, a rule without a call hides a misspelling.
func TestEveryCallHasARule(t *testing.T) {
	b := brokertest.Start(t, brokertest.Options{})
	rules := authn.Rules()
	for method := range b.Server.Methods() {
		if _, ok := rules[method]; !ok {
			t.Errorf("%s has no rule", method)
		}
		delete(rules, method)
	}
	for method := range rules {
		t.Errorf("the rule for %s is for no call", method)
	}
}
