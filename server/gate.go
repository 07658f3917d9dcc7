package server

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// gate lets a call in or says why not. It decides by the full method name that
// grpc dispatches on, never by a path that a client sent.
type gate func(ctx context.Context, method string) (context.Context, error)

// members is the gate of the main listener: a call needs a certificate and
// login that may make it.
func members(trustDomain string, who *authn.Authenticator) gate {
	return func(ctx context.Context, method string) (context.Context, error) {
		caller, err := identifyPeer(ctx, trustDomain)
		if err != nil {
			return nil, err
		}
		logging.AddFields(ctx, logging.Fields{"caller", caller.Certificate.ID})
		principal, err := who.Authenticate(ctx, caller, method, metadata.ValueFromIncomingContext(ctx, "authorization"))
		if err != nil {
			return nil, err
		}
		if principal.Login != "" {
			logging.AddFields(ctx, logging.Fields{"login", principal.Login})
		}
		return authn.WithPrincipal(ctx, principal), nil
	}
}

// newcomers is the gate of the enrollment listener, which asks for no
// certificate and serves what needs none.
func newcomers(ctx context.Context, method string) (context.Context, error) {
	return ctx, authn.Anonymous(method)
}

// identifyPeer reads the identity off the certificate that the connection was
// opened with. That it chains to a trusted authority was the handshake's to
// check; a connection without a verified chain never gets past here.
func identifyPeer(ctx context.Context, trustDomain string) (authn.Peer, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return authn.Peer{}, reason.New(reason.CertificateRequired, "the connection has no peer")
	}
	tls, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 || len(tls.State.VerifiedChains[0]) == 0 {
		return authn.Peer{}, reason.New(reason.CertificateRequired, "present a client certificate")
	}
	caller, err := authn.Identify(trustDomain, tls.State.VerifiedChains[0][0])
	if err == nil {
		caller.Certificate.Vouchers = pki.Vouchers(tls.State.VerifiedChains)
	}
	caller.Address, caller.RequestID = from.Addr.String(), apierr.RequestID(ctx)
	return caller, err
}

func (g gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := g(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (g gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := g(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, &middleware.WrappedServerStream{ServerStream: ss, WrappedContext: ctx})
}
