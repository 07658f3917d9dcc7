package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/reason"
)

// allowed in an access means that the call reaches its handler.
const allowed reason.Reason = ""

// access says, for one call, what each kind of caller is answered: allowed, or
// the reason why not. Callers without a certificate reach no call; services and
// operators that the configuration does not name are told so at each.
type access struct {
	// An agent's certificate, and with it: no login; the password of a user of
	// its tenant; that user's access token; the password of another tenant's
	// user; the access token of another agent.
	agent, password, token, foreign, stolen reason.Reason
	service                                 reason.Reason
	viewer, operator, admin                 reason.Reason
	// enrollment is what the enrollment listener answers, which asks for no
	// certificate.
	enrollment reason.Reason
}

// notServed stands for gRPC's own UNIMPLEMENTED: the listener does not have
// the service.
const notServed reason.Reason = "not served"

const (
	noCall, needsLogin = reason.CallNotAllowed, reason.LoginRequired
	lowRole            = reason.RoleTooLow
)

// The sorts of calls.
var (
	forUsers = access{
		agent: needsLogin, foreign: reason.TenantMismatch, stolen: reason.TokenCertificateBind,
		service: noCall, viewer: noCall, operator: noCall, admin: noCall, enrollment: notServed,
	}
	forPasswords = access{
		agent: needsLogin, token: needsLogin, foreign: reason.TenantMismatch, stolen: needsLogin,
		service: noCall, viewer: noCall, operator: noCall, admin: noCall, enrollment: notServed,
	}
	forTokens = access{
		agent: needsLogin, password: needsLogin, foreign: needsLogin, stolen: reason.TokenCertificateBind,
		service: noCall, viewer: noCall, operator: noCall, admin: noCall, enrollment: notServed,
	}
	// What needs no login is decided without looking at one.
	forAgents   = access{service: noCall, viewer: noCall, operator: noCall, admin: noCall, enrollment: noCall}
	forServices = access{
		agent: noCall, password: noCall, token: noCall, foreign: noCall, stolen: noCall,
		viewer: noCall, operator: noCall, admin: noCall, enrollment: notServed,
	}
	forViewers   = access{agent: noCall, password: noCall, token: noCall, foreign: noCall, stolen: noCall, service: noCall, enrollment: notServed}
	forOperators = access{
		agent: noCall, password: noCall, token: noCall, foreign: noCall, stolen: noCall, service: noCall,
		viewer: lowRole, enrollment: notServed,
	}
	forAdmins = access{
		agent: noCall, password: noCall, token: noCall, foreign: noCall, stolen: noCall, service: noCall,
		viewer: lowRole, operator: lowRole, enrollment: notServed,
	}
	forEverybody = access{enrollment: notServed}
	forNewcomers = access{
		agent: noCall, password: noCall, token: noCall, foreign: noCall, stolen: noCall, service: noCall,
		viewer: noCall, operator: noCall, admin: noCall,
	}
)

// accesses has every call that the broker serves. It repeats what authn decides
// by, on purpose: who may call what is not changed in one place by mistake.
var accesses = map[string]access{
	"/stoker.v1.CredentialService/StreamCredentials": forUsers,
	"/stoker.v1.CredentialService/GetCredentials":    forUsers,
	"/stoker.v1.CredentialService/ListGrants":        forUsers,

	"/stoker.v1.SessionService/CreateSession": forPasswords,
	"/stoker.v1.SessionService/GetSession":    forUsers,
	"/stoker.v1.SessionService/DeleteSession": forTokens,

	"/stoker.v1.EnrollmentService/Enroll":           forNewcomers,
	"/stoker.v1.EnrollmentService/RenewCertificate": forAgents,

	"/stoker.v1.DelegationService/IssueCredentials":  forServices,
	"/stoker.v1.DelegationService/StreamCredentials": forServices,
	"/stoker.v1.DelegationService/IntrospectSession": forServices,

	"/stoker.v1.TenantService/CreateTenant": forAdmins,
	"/stoker.v1.TenantService/GetTenant":    forViewers,
	"/stoker.v1.TenantService/ListTenants":  forViewers,
	"/stoker.v1.TenantService/UpdateTenant": forAdmins,
	"/stoker.v1.TenantService/DeleteTenant": forAdmins,

	"/stoker.v1.UserService/CreateUser": forOperators,
	"/stoker.v1.UserService/GetUser":    forViewers,
	"/stoker.v1.UserService/ListUsers":  forViewers,
	"/stoker.v1.UserService/UpdateUser": forOperators,
	"/stoker.v1.UserService/DeleteUser": forAdmins,

	"/stoker.v1.AgentService/CreateAgent":           forOperators,
	"/stoker.v1.AgentService/GetAgent":              forViewers,
	"/stoker.v1.AgentService/ListAgents":            forViewers,
	"/stoker.v1.AgentService/UpdateAgent":           forOperators,
	"/stoker.v1.AgentService/DeleteAgent":           forAdmins,
	"/stoker.v1.AgentService/InviteAgent":           forOperators,
	"/stoker.v1.AgentService/IssueAgentCertificate": forOperators,

	"/stoker.v1.LocationService/CreateLocation": forAdmins,
	"/stoker.v1.LocationService/GetLocation":    forViewers,
	"/stoker.v1.LocationService/ListLocations":  forViewers,
	"/stoker.v1.LocationService/UpdateLocation": forAdmins,
	"/stoker.v1.LocationService/DeleteLocation": forAdmins,

	"/stoker.v1.GrantService/CreateGrant":  forOperators,
	"/stoker.v1.GrantService/GetGrant":     forViewers,
	"/stoker.v1.GrantService/ExplainGrant": forViewers,
	"/stoker.v1.GrantService/ListGrants":   forViewers,
	"/stoker.v1.GrantService/UpdateGrant":  forOperators,
	"/stoker.v1.GrantService/DeleteGrant":  forAdmins,

	"/stoker.v1.FleetService/ListStreams":     forViewers,
	"/stoker.v1.FleetService/WatchEvents":     forViewers,
	"/stoker.v1.FleetService/GetStatus":       forViewers,
	"/stoker.v1.FleetService/Diagnose":        forOperators,
	"/stoker.v1.FleetService/Revoke":          forOperators,
	"/stoker.v1.FleetService/ListRevocations": forViewers,

	"/stoker.v1.AccountService/RotateAccountKey": forAdmins,

	"/stoker.v1.AuditService/ListRecords": forViewers,
	"/stoker.v1.AuditService/WhoIs":       forViewers,
	"/stoker.v1.AuditService/Verify":      forViewers,

	"/grpc.health.v1.Health/Check": forEverybody,
	"/grpc.health.v1.Health/List":  forEverybody,
	"/grpc.health.v1.Health/Watch": forEverybody,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      forEverybody,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": forEverybody,
}

// refusing are the reasons that say who may not call. What a handler answers to
// an empty request is none of them.
var refusing = []reason.Reason{
	reason.CallNotAllowed, reason.RoleTooLow, reason.LoginRequired, reason.LoginMalformed, reason.LoginRejected, reason.LoginDelayed,
	reason.LoginBusy, reason.TenantMismatch, reason.TokenInvalid, reason.TokenExpired, reason.TokenCertificateBind, reason.SessionEnded,
	reason.CertificateRequired, reason.CertificateIdentityInvalid, reason.TrustDomainForeign, reason.CertificateExpired,
	reason.CertificateRevoked, reason.TenantUnknown, reason.TenantDisabled, reason.AgentUnknown, reason.AgentDisabled,
	reason.ServiceUnknown, reason.OperatorUnknown, reason.UserDisabled, reason.PasswordChanged, reason.RateLimited,
	reason.Internal, reason.AuditUnavailable, reason.StorageUnavailable, reason.TooManyStreams,
}

// shown is how long a call that is expected to reach a handler which says
// nothing is waited for.
const shown = 300 * time.Millisecond

// attempt makes a call with an empty message, and gives how it was answered; a
// call that streams is allowed once it sends something, or goes on.
func attempt(t *testing.T, ctx context.Context, conn *grpc.ClientConn, method string, want reason.Reason) error {
	t.Helper()
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	wantOK(t, err)
	m := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	limit := patience
	if want == allowed {
		limit = shown
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	err = s.RecvMsg(&emptypb.Empty{})
	if want == allowed && status.Code(err) == codes.DeadlineExceeded {
		return nil
	}
	return err
}

// judge compares an answer with what is expected of the call.
func judge(t *testing.T, who, method string, err error, want reason.Reason) {
	t.Helper()
	st := status.Convert(err)
	got := apierr.Reason(st)
	switch {
	case want == notServed:
		if st.Code() != codes.Unimplemented || got != "" {
			t.Errorf("%s, %s: got %v, want it not to be served", method, who, err)
		}
	case want == allowed:
		// Reflection has no reasons of ours for what it cannot read.
		unread := got == "" && st.Code() == codes.InvalidArgument
		if slices.Contains(refusing, got) || got == "" && st.Code() != codes.OK && !unread {
			t.Errorf("%s, %s: got %v, want it to be allowed", method, who, err)
		}
	case got != want || st.Code() != apierr.Code(want):
		t.Errorf("%s, %s: got %v (reason %q), want %s", method, who, err, got, want)
	}
}

// caller is one kind of principal.
type caller struct {
	who  string
	want func(access) reason.Reason
	// call gives the connection and metadata for a call of the method.
	call func(t *testing.T, method string) (*grpc.ClientConn, context.Context)
}

func TestWhoMayCallWhat(t *testing.T) {
	b := site(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Operators["vera"], c.Operators["otto"] = "viewer", "operator"
		c.Services = map[string]server.ServiceConfig{"restorer": {Tenants: []string{"*"}, Access: []string{"backup"}}}
		c.Enrollment = &server.EnrollmentConfig{Listen: "127.0.0.1:0"}
	}})
	served := map[string]bool{}
	for method := range b.Server.Methods() {
		served[method] = true
		if _, ok := accesses[method]; !ok {
			t.Errorf("%s is served and is not in the table: say who may call it", method)
		}
	}
	for method := range accesses {
		if !served[method] {
			t.Errorf("%s is in the table and is not served", method)
		}
	}
	methods := slices.Sorted(maps.Keys(served))
	for _, c := range callers(t, b) {
		t.Run(c.who, func(t *testing.T) {
			for _, method := range methods {
				conn, ctx := c.call(t, method)
				want := c.want(accesses[method])
				judge(t, c.who, method, attempt(t, ctx, conn, method, want), want)
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		if err := alert(t, b, b.TLS(tls.Certificate{})); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("the handshake ended with %v", err)
		}
		conn := b.Dial(tls.Certificate{})
		for _, method := range methods {
			if err := attempt(t, t.Context(), conn, method, noCall); !isCode(err, codes.Unavailable) {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

// callers makes one caller of each kind.
func callers(t *testing.T, b *brokertest.Broker) []caller {
	t.Helper()
	acme, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	token := acme.session(t)
	desktop := acme.with(b, b.Agent("acme", "desktop")).session(t)
	always := func(r reason.Reason) func(access) reason.Reason { return func(access) reason.Reason { return r } }
	alone := func(conn *grpc.ClientConn) func(*testing.T, string) (*grpc.ClientConn, context.Context) {
		return func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) { return conn, t.Context() }
	}
	newcomer, err := grpc.NewClient(b.Server.EnrollmentAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(b.TLS(tls.Certificate{}))))
	wantOK(t, err)
	t.Cleanup(func() { _ = newcomer.Close() })
	return []caller{
		{"agent", func(a access) reason.Reason { return a.agent }, alone(acme.conn)},
		{"agent with a user's password", func(a access) reason.Reason { return a.password },
			func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) { return acme.conn, acme.ctx(t) }},
		{"agent with a user's token", func(a access) reason.Reason { return a.token },
			func(t *testing.T, method string) (*grpc.ClientConn, context.Context) {
				if method == stokerv1.SessionService_DeleteSession_FullMethodName {
					return acme.conn, acme.session(t).ctx(t) // this one's end
				}
				return acme.conn, token.ctx(t)
			}},
		{"agent with another tenant's user", func(a access) reason.Reason { return a.foreign },
			// A new certificate each time: wrong logins are delayed.
			func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) {
				return b.Dial(b.Certify("acme", "laptop")), other.ctx(t)
			}},
		{"agent with another agent's token", func(a access) reason.Reason { return a.stolen },
			func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) { return acme.conn, desktop.ctx(t) }},
		{"agent of no tenant", always(reason.TenantUnknown), alone(b.Dial(b.SignAgent("nobody", "laptop", time.Hour)))},
		{"agent that does not exist", always(reason.AgentUnknown), alone(b.Dial(b.SignAgent("acme", "nobody", time.Hour)))},
		{"service", func(a access) reason.Reason { return a.service }, alone(b.Dial(b.IssueService("restorer")))},
		{"unknown service", always(reason.ServiceUnknown), alone(b.Dial(b.IssueService("stranger")))},
		{"viewer", func(a access) reason.Reason { return a.viewer }, alone(b.Dial(b.IssueOperator("vera")))},
		{"operator", func(a access) reason.Reason { return a.operator }, alone(b.Dial(b.IssueOperator("otto")))},
		{"admin", func(a access) reason.Reason { return a.admin }, alone(b.Admin)},
		{"unknown operator", always(reason.OperatorUnknown), alone(b.Dial(b.IssueOperator("stranger")))},
		// A login is worth nothing on another certificate than an agent's.
		{"admin with a user's password", func(a access) reason.Reason { return a.admin },
			func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) { return b.Admin, acme.ctx(t) }},
		{"newcomer on the enrollment listener", func(a access) reason.Reason { return a.enrollment }, alone(newcomer)},
		{"newcomer with a user's password", func(a access) reason.Reason { return a.enrollment },
			func(t *testing.T, _ string) (*grpc.ClientConn, context.Context) { return newcomer, acme.ctx(t) }},
	}
}
