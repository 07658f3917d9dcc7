package server

import (
	"context"
	"math/rand/v2"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/admission"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/reason"
)

// gate lets a call in or says why not. It decides by the full method name that
// grpc dispatches on, never by a path that a client sent.
type gate func(ctx context.Context, method string) (context.Context, error)

// members is the gate of the main listener: a call needs a certificate and
// login that may make it. As many streams pass at once as the entry lets in.
func members(trustDomain string, who *authn.Authenticator, entry *admission.Turnstile) gate {
	return func(ctx context.Context, method string) (context.Context, error) {
		c := callOf(ctx)
		caller, err := identifyPeer(ctx, trustDomain, c)
		if err != nil {
			return nil, err
		}
		c.caller = caller.Certificate.ID
		if caller.Kind == authn.Agent {
			leave, err := admit(ctx, c, entry)
			if err != nil {
				return nil, err
			}
			defer leave()
		}
		principal, err := who.Authenticate(ctx, caller, method, metadata.ValueFromIncomingContext(ctx, "authorization"))
		if err != nil {
			return nil, err
		}
		c.login = principal.Login
		return authn.WithPrincipal(ctx, principal), nil
	}
}

// admit lets an agent's call be looked at, or tells the agent when to come back:
// if the broker has as many connections as it may, or as many streams at its
// gate. leave must be called once that is done.
//
// A certificate is renewed on a connection of its own, beside the stream's: a
// broker that is full for long must not let those lapse that it has.
func admit(ctx context.Context, c *call, entry *admission.Turnstile) (leave func(), err error) {
	if conn, ok := connectionOf(ctx); ok && conn.spare && c.method != stokerv1.EnrollmentService_RenewCertificate_FullMethodName {
		return nil, reason.New(reason.BrokerBusy, "the broker has as many connections as it can; wait as told, or go to another").
			After(fullFor + rand.N(fullFor))
	}
	if !c.streams {
		return func() {}, nil
	}
	wait, ok := entry.Enter()
	if !ok {
		return nil, reason.New(reason.BrokerBusy, "the broker lets in as many agents at once as it can; wait as told, or go to another").After(wait)
	}
	return entry.Leave, nil
}

// newcomers is the gate of the enrollment listener, which asks for no
// certificate and serves what needs none.
func newcomers(ctx context.Context, method string) (context.Context, error) {
	return ctx, authn.Anonymous(method)
}

// identifyPeer says who is at the other end of a call's connection.
func identifyPeer(ctx context.Context, trustDomain string, c *call) (authn.Peer, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return authn.Peer{}, reason.New(reason.CertificateRequired, "the connection has no peer")
	}
	conn, ok := connectionOf(ctx)
	if !ok {
		return authn.Peer{}, reason.New(reason.CertificateRequired, "present a client certificate")
	}
	caller, err := conn.identify(trustDomain, from.Addr)
	caller.RequestID = c.id
	if !c.streams {
		// An agent opens one stream and may make many unary calls.
		caller.Memory = &conn.login
	}
	return caller, err
}

// enter is the gate as a layer.
func (g gate) enter(ctx context.Context, c *call) (context.Context, error) { return g(ctx, c.method) }
