package server_test

import (
	"context"
	"crypto/tls"
	"os"
	"testing"
	"time"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// renewed renews an agent's certificate as whoever has its key can.
func renewed(t *testing.T, a agent) tls.Certificate {
	t.Helper()
	key, request, err := pki.NewRequest()
	wantOK(t, err)
	answer, err := stokerv1.NewEnrollmentServiceClient(a.conn).RenewCertificate(t.Context(), &stokerv1.RenewCertificateRequest{CertificateRequest: request})
	wantOK(t, err)
	cert, err := pki.Pair(key, answer.GetCertificate().GetCertificatePem())
	wantOK(t, err)
	return cert
}

// Whoever stole a key may have renewed its certificate. Revoking any one of the
// line cuts off all of it, and not the agent's certificates of another line.
func TestRevokingReachesWhatWasRenewed(t *testing.T) {
	b := site(t, brokertest.Options{})
	first := join(t, b, "acme", time.Hour)
	thief := first.with(b, renewed(t, first))
	heir := first.with(b, renewed(t, first))
	apart := first.with(b, b.Certify("acme", first.name))
	stolen, kept := subscribe(t, thief), subscribe(t, apart)
	stolen.credential()
	kept.credential()
	revokeCertificate(t, b, heir)
	acknowledged := time.Now()
	stolen.end()
	wantReason(t, stolen.err, reason.CertificateRevoked)
	if late := stolen.at.Sub(acknowledged); late > prompt {
		t.Errorf("the thief's stream ended %s after the acknowledgement", late)
	}
	for _, a := range []agent{first, thief, heir} {
		_, err := a.fetch(t, "nightly")
		wantReason(t, err, reason.CertificateRevoked)
	}
	apart.works(t)
}

// A certificate of the provider's own PKI that is older than the deletion of its
// agent does not serve the next agent of that name, which the broker would not
// know otherwise.
func TestDeletedNamesDoNotComeBack(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	for name, remove := range map[string]func(*testing.T, *brokertest.Broker, agent){
		"agent": func(t *testing.T, b *brokertest.Broker, a agent) {
			deleteAgent(t, b, a)
			_, err := stokerv1.NewAgentServiceClient(b.Admin).CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: a.tenant, Name: a.name}})
			wantOK(t, err)
		},
		"tenant": func(t *testing.T, b *brokertest.Broker, a agent) {
			deleteTenant(t, b, a)
			join(t, b, a.tenant, time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := site(t, brokertest.Options{PKI: []*pki.Authority{ours}})
			// Made outside: the broker never saw it.
			a := join(t, b, "acme", time.Hour)
			old := a.with(b, forge(t, ours, client(t, laptop)))
			wantOK(t, old.whoami(old.ctx(t)))
			remove(t, b, a)
			wantReason(t, old.whoami(brokertest.Basic(t.Context(), "backup@acme", "whatever")), reason.CertificateRevoked)
			fresh := client(t, laptop)
			// A certificate's times have whole seconds.
			fresh.NotBefore = time.Now().Add(time.Second)
			next := a.with(b, forge(t, ours, fresh))
			polling.Until(t.Context(), t, "the certificate's beginning", func() bool { return time.Now().After(fresh.NotBefore) })
			err := next.whoami(brokertest.Basic(t.Context(), "backup@acme", "whatever"))
			if reasonOf(err) == string(reason.CertificateRevoked) {
				t.Errorf("a certificate of the next agent: %v", err)
			}
		})
	}
}

// A service that asks whose token it was handed learns that the certificate's
// authority is not trusted any more, or that the certificate is revoked.
func TestIntrospectionSeesTheCertificate(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	lost, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours, lost}, Configure: func(c *server.Config) { withServices(c) }})
	a := join(t, b, "acme", time.Hour)
	foreign := a.with(b, forge(t, lost, client(t, laptop))).session(t)
	own := a.session(t)
	service := stokerv1.NewDelegationServiceClient(b.Dial(b.IssueService("reader")))
	ask := func(ctx context.Context, token string) string {
		t.Helper()
		answer, err := service.IntrospectSession(ctx, &stokerv1.IntrospectSessionRequest{AccessToken: token})
		wantOK(t, err)
		if answer.GetActive() {
			return "active"
		}
		return answer.GetInactiveReason()
	}
	if got := ask(t.Context(), foreign.token); got != "active" {
		t.Fatalf("before: %s", got)
	}
	bundle := b.Config.TLS.ClientAuthorities
	wantOK(t, os.WriteFile(bundle+".next", ours.CertificatePEM(), 0o600))
	wantOK(t, os.Rename(bundle+".next", bundle))
	polling.Until(t.Context(), t, "the other authority to be distrusted", func() bool { return ask(t.Context(), foreign.token) == "CERTIFICATE_REVOKED" })
	if got := ask(t.Context(), own.token); got != "active" {
		t.Errorf("a token of the other authority's certificate: %s", got)
	}
	b.Revoke(own.cert)
	polling.Until(t.Context(), t, "the revocation list to be read", func() bool { return ask(t.Context(), own.token) == "CERTIFICATE_REVOKED" })
}
