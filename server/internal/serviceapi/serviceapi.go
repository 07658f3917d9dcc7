package serviceapi

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/delegation"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/stream"
)

// Counter gives services credentials; *delegation.Counter does.
type Counter interface {
	Issue(ctx context.Context, p authn.Principal, r delegation.Request) (lease.Credential, error)
	Open(ctx context.Context, p authn.Principal, r delegation.Request) (authn.Principal, error)
}

// Streams opens streams; *stream.Registry does.
type Streams interface {
	Open(p *authn.Principal, c stream.Conn) (*stream.Stream, error)
}

// Introspector says whose an access token is; *authn.Authenticator does.
type Introspector interface {
	Introspect(ctx context.Context, token secret.String) (authn.Principal, error)
}

type delegations struct {
	stokerv1.UnsafeDelegationServiceServer
	Config
}

// Config is what DelegationService leans on: all of it.
type Config struct {
	Counter Counter
	Streams Streams
	Tokens  Introspector
	Log     *slog.Logger
}

// Register adds DelegationService to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	stokerv1.RegisterDelegationServiceServer(r, delegations{Config: c})
}

// IssueCredentials implements the call.
func (d delegations) IssueCredentials(ctx context.Context, req *stokerv1.IssueCredentialsRequest) (*stokerv1.IssueCredentialsResponse, error) {
	p, ok := authn.PrincipalFrom(ctx)
	if !ok {
		return nil, reason.New(reason.CertificateRequired, "present the service's certificate")
	}
	var least time.Duration
	if l := req.GetMinLife(); l != nil {
		if err := l.CheckValid(); err != nil || l.AsDuration() < 0 {
			return nil, reason.New(reason.InvalidRequest, "min_life: want a duration that is not negative")
		}
		least = l.AsDuration()
	}
	c, err := d.Counter.Issue(ctx, p, delegation.Request{
		Tenant: req.GetTenant(), Grant: req.GetGrant(), Purpose: req.GetReason(), MinLife: least, RequestID: apierr.RequestID(ctx),
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.IssueCredentialsResponse{Credential: message.Credential(&c)}, nil
}

// IntrospectSession implements the call. A token that is not good is an
// answer; that the broker could not look is an error.
func (d delegations) IntrospectSession(ctx context.Context, req *stokerv1.IntrospectSessionRequest) (*stokerv1.IntrospectSessionResponse, error) {
	p, err := d.Tokens.Introspect(ctx, secret.New(req.GetAccessToken()))
	if err != nil {
		why := reason.Of(err)
		if row, known := reason.Lookup(why); !known || row.Transient {
			return nil, err
		}
		return &stokerv1.IntrospectSessionResponse{InactiveReason: string(why)}, nil
	}
	return &stokerv1.IntrospectSessionResponse{
		Active: true, CertificateThumbprint: p.Certificate.Thumbprint,
		Identity: message.Identity(p),
	}, nil
}
