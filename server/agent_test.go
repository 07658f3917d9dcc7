package server_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
)

// agent is an agent with its connection and a user's login.
type agent struct {
	conn     *grpc.ClientConn
	cert     tls.Certificate
	tenant   string
	name     string
	login    string // without the tenant
	password string
	// token is sent instead of the password, if there is one.
	token string
}

// join makes a tenant with a user, an agent, and the grant "nightly".
func join(t testing.TB, b *brokertest.Broker, tenant string, lifetime time.Duration) agent {
	t.Helper()
	b.Tenant(tenant)
	a := agent{tenant: tenant, name: "laptop", login: "backup", password: b.User(tenant, "backup")}
	a.cert = b.Agent(tenant, a.name)
	a.conn = b.Dial(a.cert)
	b.Grant(&stokerv1.Grant{
		Tenant: tenant, Name: "nightly", Location: "main", Prefix: tenant + "/", Access: stokerv1.Access_ACCESS_BACKUP,
	}, lifetime)
	return a
}

// site starts a broker with the location "main" and no tenants.
func site(t testing.TB, o brokertest.Options) *brokertest.Broker {
	t.Helper()
	b := brokertest.Start(t, o)
	b.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	return b
}

// with is the agent with another certificate.
func (a agent) with(b *brokertest.Broker, cert tls.Certificate) agent {
	a.cert, a.conn = cert, b.Dial(cert)
	return a
}

// ctx has the login in it.
func (a agent) ctx(t testing.TB) context.Context {
	if a.token != "" {
		return brokertest.Bearer(t.Context(), a.token)
	}
	return brokertest.Basic(t.Context(), a.login+"@"+a.tenant, a.password)
}

// fetch asks for credentials for the grants; none means all.
func (a agent) fetch(t testing.TB, grants ...string) ([]*stokerv1.Credential, error) {
	t.Helper()
	got, err := stokerv1.NewCredentialServiceClient(a.conn).GetCredentials(a.ctx(t), &stokerv1.GetCredentialsRequest{Grants: grants})
	return got.GetCredentials(), err
}

// works checks that the agent is supplied: whatever was refused before, nothing
// was lost by it.
func (a agent) works(t testing.TB) {
	t.Helper()
	got, err := a.fetch(t, "nightly")
	wantOK(t, err)
	if len(got) != 1 || got[0].GetTarget().GetPrefix() != a.tenant+"/" {
		t.Fatalf("got %v", got)
	}
}

// session logs in with the password, and is the agent with the token from it.
func (a agent) session(t testing.TB) agent {
	t.Helper()
	a.token = ""
	made, err := stokerv1.NewSessionServiceClient(a.conn).CreateSession(a.ctx(t), &stokerv1.CreateSessionRequest{})
	wantOK(t, err)
	a.token = made.GetAccessToken()
	return a
}

// whoami makes the simplest call that needs a login.
func (a agent) whoami(ctx context.Context) error {
	_, err := stokerv1.NewSessionServiceClient(a.conn).GetSession(ctx, &stokerv1.GetSessionRequest{})
	return err
}
