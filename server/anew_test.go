package server_test

import (
	"crypto/tls"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// A name says nothing about who had it before: of an agent or a tenant that
// was deleted and made anew, no old certificate, token or password is good.
func TestMadeAnewUnderTheSameName(t *testing.T) {
	b := site(t, brokertest.Options{})
	t.Run("agent", func(t *testing.T) {
		old := join(t, b, "agent-anew", time.Hour).session(t)
		old.works(t)
		renewed := old.with(b, b.Certify(old.tenant, old.name))
		deleteAgent(t, b, old)
		fresh := old.with(b, b.Agent(old.tenant, old.name))
		fresh.token = ""
		fresh.works(t)
		_, err := old.fetch(t, "nightly")
		wantReason(t, err, reason.CertificateRevoked)
		old.token, renewed.token = "", ""
		for _, a := range []agent{old, renewed, old.with(b, old.cert)} {
			_, err = a.fetch(t, "nightly")
			wantReason(t, err, reason.CertificateRevoked)
			_, err = stokerv1.NewEnrollmentServiceClient(a.conn).RenewCertificate(t.Context(), &stokerv1.RenewCertificateRequest{})
			wantReason(t, err, reason.CertificateRevoked)
		}
		fresh.works(t)
	})
	t.Run("tenant", func(t *testing.T) {
		old := join(t, b, "tenant-anew", time.Hour).session(t)
		deleteTenant(t, b, old)
		fresh := join(t, b, old.tenant, time.Hour)
		fresh.works(t)
		_, err := old.fetch(t, "nightly")
		wantReason(t, err, reason.CertificateRevoked)
		// Not even with the new user's password.
		old.password, old.token = fresh.password, ""
		_, err = old.fetch(t, "nightly")
		wantReason(t, err, reason.CertificateRevoked)
	})
	t.Run("user", func(t *testing.T) {
		old := join(t, b, "user-anew", time.Hour).session(t)
		deleteUser(t, b, old)
		password := b.User(old.tenant, old.login)
		_, err := old.fetch(t, "nightly")
		wantReason(t, err, reason.UserDisabled)
		old.token = ""
		_, err = old.fetch(t, "nightly")
		wantReason(t, err, reason.LoginRejected)
		old.password = password
		old.works(t)
	})
}

// An invitation is for the agent that it was made for, not for the next one of
// that name.
func TestAnInvitationDiesWithItsAgent(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
	b.Tenant("acme")
	agents := stokerv1.NewAgentServiceClient(b.Admin)
	invited, err := agents.InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "laptop"})
	wantOK(t, err)
	_, err = agents.DeleteAgent(t.Context(), &stokerv1.DeleteAgentRequest{Tenant: "acme", Name: "laptop"})
	wantOK(t, err)
	b.Agent("acme", "laptop")

	_, request, err := pki.NewRequest()
	wantOK(t, err)
	config := b.TLS(tls.Certificate{})
	conn, err := grpc.NewClient(b.Server.EnrollmentAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	wantOK(t, err)
	defer func() { _ = conn.Close() }()
	_, err = stokerv1.NewEnrollmentServiceClient(conn).Enroll(t.Context(), &stokerv1.EnrollRequest{
		JoinToken: invited.GetJoinToken(), CertificateRequest: request,
	})
	wantReason(t, err, reason.JoinTokenInvalid)
}
