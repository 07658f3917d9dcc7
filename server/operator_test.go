package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// What an operator does to an agent's party. Each is acknowledged when it
// returns.

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// cutoffs are what ends all that an agent may do, and the reason that it learns.
var cutoffs = []struct {
	name string
	do   func(testing.TB, *brokertest.Broker, agent)
	want reason.Reason
}{
	{"session deleted", func(t testing.TB, _ *brokertest.Broker, a agent) { deleteSession(t, a) }, reason.SessionEnded},
	{"user disabled", func(t testing.TB, b *brokertest.Broker, a agent) { disableUser(t, b, a, true) }, reason.UserDisabled},
	{"user deleted", deleteUser, reason.UserDisabled},
	{"password changed", changePassword, reason.PasswordChanged},
	{"agent disabled", disableAgent, reason.AgentDisabled},
	{"agent deleted", deleteAgent, reason.CertificateRevoked},
	{"tenant disabled", disableTenant, reason.TenantDisabled},
	{"tenant deleted", deleteTenant, reason.CertificateRevoked},
	{"certificate revoked", revokeCertificate, reason.CertificateRevoked},
}

func disableUser(t testing.TB, b *brokertest.Broker, a agent, disabled bool) {
	t.Helper()
	_, err := stokerv1.NewUserServiceClient(b.Admin).UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: a.tenant, Login: a.login, Disabled: disabled}, UpdateMask: mask("disabled"),
	})
	wantOK(t, err)
}

func deleteUser(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewUserServiceClient(b.Admin).DeleteUser(t.Context(), &stokerv1.DeleteUserRequest{Tenant: a.tenant, Login: a.login})
	wantOK(t, err)
}

func changePassword(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewUserServiceClient(b.Admin).UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: a.tenant, Login: a.login}, Password: "another good password", UpdateMask: mask("password"),
	})
	wantOK(t, err)
}

func disableAgent(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewAgentServiceClient(b.Admin).UpdateAgent(t.Context(), &stokerv1.UpdateAgentRequest{
		Agent: &stokerv1.Agent{Tenant: a.tenant, Name: a.name, Disabled: true}, UpdateMask: mask("disabled"),
	})
	wantOK(t, err)
}

func deleteAgent(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewAgentServiceClient(b.Admin).DeleteAgent(t.Context(), &stokerv1.DeleteAgentRequest{Tenant: a.tenant, Name: a.name})
	wantOK(t, err)
}

func disableTenant(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewTenantServiceClient(b.Admin).UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: a.tenant, Disabled: true}, UpdateMask: mask("disabled"),
	})
	wantOK(t, err)
}

func deleteTenant(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewTenantServiceClient(b.Admin).DeleteTenant(t.Context(), &stokerv1.DeleteTenantRequest{Name: a.tenant})
	wantOK(t, err)
}

func revokeCertificate(t testing.TB, b *brokertest.Broker, a agent) {
	t.Helper()
	_, err := stokerv1.NewFleetServiceClient(b.Admin).Revoke(t.Context(), &stokerv1.RevokeRequest{
		Target: &stokerv1.RevokeRequest_Certificate{Certificate: pki.Serial(brokertest.Leaf(a.cert))}, Reason: "stolen",
	})
	wantOK(t, err)
}

// setLifetime changes the agent's grant, which is a change of its terms.
func setLifetime(t testing.TB, b *brokertest.Broker, a agent, lifetime time.Duration) {
	t.Helper()
	_, err := stokerv1.NewGrantServiceClient(b.Admin).UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Lifetime: durationpb.New(lifetime)}, UpdateMask: mask("lifetime"),
	})
	wantOK(t, err)
}

// setAccess changes the agent's grant so that its policy is another.
func setAccess(t testing.TB, b *brokertest.Broker, a agent, access stokerv1.Access) {
	t.Helper()
	_, err := stokerv1.NewGrantServiceClient(b.Admin).UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{Tenant: a.tenant, Name: "nightly", Access: access}, UpdateMask: mask("access"),
	})
	wantOK(t, err)
}
