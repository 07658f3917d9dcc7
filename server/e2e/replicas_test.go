package e2e_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// replicated starts two brokers on one PostgreSQL with a tenant acme.
func replicated(t *testing.T, dsn string) (a, b *brokertest.Broker, password string) {
	t.Helper()
	a = brokertest.Start(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Storage = server.StorageConfig{Postgres: dsn}
	}})
	a.Tenant("acme")
	password = a.User("acme", "backup")
	a.Location(&stokerv1.Location{Name: "main", Bucket: "shared-bucket"})
	a.Grant(&stokerv1.Grant{Tenant: "acme", Name: "nightly", Location: "main", Prefix: "acme/", Access: stokerv1.Access_ACCESS_BACKUP}, time.Hour)
	return a, a.Replica(), password
}

// subscribed opens a stream and reads on until its first credential.
func subscribed(ctx context.Context, t *testing.T, agents stokerv1.CredentialServiceClient) stokerv1.CredentialService_StreamCredentialsClient {
	t.Helper()
	stream, err := agents.StreamCredentials(ctx)
	must(t, err)
	must(t, stream.Send(&stokerv1.StreamCredentialsRequest{Message: &stokerv1.StreamCredentialsRequest_Subscribe{Subscribe: &stokerv1.Subscribe{}}}))
	nextCredential(t, stream)
	return stream
}

func nextCredential(t *testing.T, stream stokerv1.CredentialService_StreamCredentialsClient) *stokerv1.Credential {
	t.Helper()
	for {
		m, err := stream.Recv()
		must(t, err)
		if c := m.GetCredential(); c != nil {
			return c
		}
	}
}

// end reads until the stream ends, and says why and when.
func end(stream stokerv1.CredentialService_StreamCredentialsClient) (reason.Reason, time.Time) {
	for {
		if _, err := stream.Recv(); err != nil {
			return apierr.Reason(status.Convert(err)), time.Now()
		}
	}
}

func TestWhatOneReplicaIsToldHoldsOnTheOther(t *testing.T) {
	db := postgres.Start(t)
	a, b, password := replicated(t, db.Database(t))
	cert := a.Agent("acme", "laptop")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	login := brokertest.Basic(ctx, "backup@acme", password)

	// A session of one replica is good on the other: no sticky sessions.
	session, err := stokerv1.NewSessionServiceClient(a.Dial(cert)).CreateSession(login, &stokerv1.CreateSessionRequest{})
	must(t, err)
	stream := subscribed(brokertest.Bearer(ctx, session.GetAccessToken()), t, stokerv1.NewCredentialServiceClient(b.Dial(cert)))

	// A change on one reaches the streams of the other.
	_, err = stokerv1.NewGrantServiceClient(a.Admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "acme", Name: "nightly", Access: stokerv1.Access_ACCESS_RESTORE},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
	})
	must(t, err)
	if c := nextCredential(t, stream); c.GetAccess() != stokerv1.Access_ACCESS_RESTORE {
		t.Errorf("the credential after the change has %v", c.GetAccess())
	}

	// So does a revocation, and the other issues nothing from then on.
	_, err = stokerv1.NewUserServiceClient(a.Admin).UpdateUser(ctx, &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "backup", Disabled: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must(t, err)
	acknowledged := time.Now()
	if _, err := stokerv1.NewCredentialServiceClient(b.Dial(cert)).GetCredentials(brokertest.Bearer(ctx, session.GetAccessToken()), &stokerv1.GetCredentialsRequest{}); err == nil {
		t.Error("the other replica issued after the acknowledgement")
	}
	why, at := end(stream)
	if why != reason.UserDisabled {
		t.Errorf("the stream ended with %q", why)
	}
	t.Logf("the stream on the other replica ended %v after the acknowledgement", at.Sub(acknowledged))
}

func TestReplicaWithoutItsDatabaseIssuesNothingAndKeepsItsStreams(t *testing.T) {
	db := postgres.Start(t)
	link := db.Link(t)
	a, _, password := replicated(t, link.DSN(t, db.Database(t)))
	cert := a.Agent("acme", "laptop")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	agents := stokerv1.NewCredentialServiceClient(a.Dial(cert))
	session, err := stokerv1.NewSessionServiceClient(a.Dial(cert)).CreateSession(brokertest.Basic(ctx, "backup@acme", password), &stokerv1.CreateSessionRequest{})
	must(t, err)
	bearer := brokertest.Bearer(ctx, session.GetAccessToken())
	stream := subscribed(bearer, t, agents)
	issued := len(a.STS.Issued())

	link.Cut()
	health := grpc_health_v1.NewHealthClient(a.Admin)
	serving := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		answer, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "stoker.v1.CredentialService"})
		must(t, err)
		return answer.GetStatus()
	}
	polling.Until(ctx, t, "NOT_SERVING", func() bool { return serving() == grpc_health_v1.HealthCheckResponse_NOT_SERVING })
	// Another agent's first credential needs a record, which cannot be made.
	if _, err := agents.GetCredentials(brokertest.Basic(ctx, "backup@acme", password), &stokerv1.GetCredentialsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a login without the database: %v", err)
	}
	if n := len(a.STS.Issued()); n != issued {
		t.Errorf("%d credentials were asked of STS while none could be recorded", n-issued)
	}

	link.Restore()
	polling.Until(ctx, t, "SERVING", func() bool { return serving() == grpc_health_v1.HealthCheckResponse_SERVING })
	// The stream lived through it, and learns what happens now.
	_, err = stokerv1.NewGrantServiceClient(a.Admin).UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "acme", Name: "nightly", Access: stokerv1.Access_ACCESS_RESTORE},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"access"}},
	})
	must(t, err)
	if c := nextCredential(t, stream); c.GetAccess() != stokerv1.Access_ACCESS_RESTORE {
		t.Errorf("the credential after the outage has %v", c.GetAccess())
	}
}
