package adminapi_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/jointoken"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

func TestIssueAgentCertificate(t *testing.T) {
	c := start(t, func(c *adminapi.Config) { c.CertificateLifetime = 48 * time.Hour })
	c.populate(t)
	bundle := must(c.agents.IssueAgentCertificate(t.Context(), &stokerv1.IssueAgentCertificateRequest{
		Tenant: "acme", Name: "server-1", CertificateRequest: newRequest(t),
	}))(t).GetCertificate()
	block, _ := pem.Decode(bundle.GetCertificatePem())
	if block == nil {
		t.Fatalf("no PEM: %s", bundle.GetCertificatePem())
	}
	cert := must(x509.ParseCertificate(block.Bytes))(t)
	who := must(pki.Identify(cert))(t)
	if who.Tenant != "acme" || who.Agent != "server-1" || bundle.GetSpiffeId() != "spiffe://backup.example/tenant/acme/agent/server-1" {
		t.Errorf("the certificate names %+v, the answer %s", who, bundle.GetSpiffeId())
	}
	if bundle.GetSerial() != pki.Serial(cert) || !bundle.GetNotAfter().AsTime().Equal(cert.NotAfter) || time.Until(cert.NotAfter) > 48*time.Hour {
		t.Errorf("the answer says %v", bundle)
	}
	if !bytes.Equal(bundle.GetAuthorityPem(), c.Authority.CertificatePEM()) {
		t.Error("the authority is another")
	}
	agent, _ := c.Directory.AgentByName(mustTenant(t, c, "acme"), "server-1")
	stored := must(c.Store.CertificatesOf(t.Context(), agent.ID))(t)
	if len(stored) != 1 || stored[0].Serial != bundle.GetSerial() || stored[0].Thumbprint != pki.Thumbprint(cert) || stored[0].Subject != bundle.GetSpiffeId() {
		t.Errorf("stored %+v", stored)
	}
	trail := c.Records(t)
	end := trail[len(trail)-1]
	if end.Event != string(audit.CertificateIssued) || end.Detail["serial"] != bundle.GetSerial() || end.AgentID != agent.ID || end.Tenant != "acme" {
		t.Errorf("the trail ends with %+v", end)
	}
}

func TestCertificateRequestsAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	good := newRequest(t)
	altered := bytes.Clone(good)
	altered[len(altered)-1] ^= 1
	for name, request := range map[string][]byte{"missing": nil, "garbage": []byte("request"), "altered": altered, "cut": good[:40], "huge": []byte(long)} {
		t.Run(name, func(t *testing.T) {
			_, err := c.agents.IssueAgentCertificate(t.Context(), &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: "server-1", CertificateRequest: request})
			refused(t, err, reason.RequestUnsigned, "certificate request")
		})
	}
}

// An agent's name may be twice as long as a tenant's, and is one in its
// certificate too.
func TestLongAgentName(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	name := long[:63]
	must(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: name}}))(t)
	bundle := must(c.agents.IssueAgentCertificate(t.Context(), &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: name, CertificateRequest: newRequest(t)}))(t)
	if got := bundle.GetCertificate().GetSpiffeId(); got != "spiffe://backup.example/tenant/acme/agent/"+name {
		t.Errorf("got %s", got)
	}
}

func TestInviteAgent(t *testing.T) {
	c := start(t, func(c *adminapi.Config) { c.TokenLifetime = 5 * time.Minute })
	c.tenant(t, "acme")
	invite := func() *stokerv1.InviteAgentResponse {
		return must(c.agents.InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "new"}))(t)
	}
	first := invite()
	token := must(jointoken.Parse(first.GetJoinToken()))(t)
	if token.Pin() != c.Authority.Pin() {
		t.Error("the token has another authority's pin")
	}
	stored := must(c.Store.GetJoinToken(t.Context(), token.ID()))(t)
	if !token.Matches(stored.Hash) || stored.AgentName != "new" || stored.TenantID != mustTenant(t, c, "acme") || stored.CreatedBy != "spiffe://backup.example/operator/ann" {
		t.Errorf("stored %+v", stored)
	}
	if left := time.Until(first.GetExpireTime().AsTime()); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("%v left", left)
	}
	agent := must(c.agents.GetAgent(t.Context(), &stokerv1.GetAgentRequest{Tenant: "acme", Name: "new"}))(t).GetAgent()
	if second := invite(); second.GetJoinToken() == first.GetJoinToken() {
		t.Error("two invitations have one token")
	}
	if again := must(c.agents.GetAgent(t.Context(), &stokerv1.GetAgentRequest{Tenant: "acme", Name: "new"}))(t).GetAgent(); again.GetId() != agent.GetId() {
		t.Error("the second invitation made another agent")
	}
	trail := c.Records(t)
	end := trail[len(trail)-1]
	if end.Event != string(audit.AgentInvited) || end.Agent != "new" || end.AgentID != agent.GetId() || end.Detail["join_token_id"] == "" || end.Detail["expires"] == "" {
		t.Errorf("the trail ends with %+v", end)
	}
	c.noSecrets(t, first.GetJoinToken(), first.GetJoinToken()[len("stoker-join.")+23:][:43])
}

// A broker of a provider with a PKI of its own signs nothing.
func TestNoAuthority(t *testing.T) {
	c := start(t, func(c *adminapi.Config) { c.Authority = nil })
	c.populate(t)
	_, err := c.agents.IssueAgentCertificate(t.Context(), &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: "server-1", CertificateRequest: newRequest(t)})
	refused(t, err, reason.NoAuthority, "the provider's PKI")
	_, err = c.agents.InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "new"})
	refused(t, err, reason.NoAuthority, "the provider's PKI")
}
