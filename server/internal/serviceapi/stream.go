package serviceapi

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/carrier"
	"github.com/stokerd/stoker/server/internal/delegation"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/stream"
)

type (
	streamRequest  = stokerv1.DelegationServiceStreamCredentialsRequest
	streamResponse = stokerv1.DelegationServiceStreamCredentialsResponse
	streamCall     = grpc.BidiStreamingServer[streamRequest, streamResponse]
)

// firstMessage is how long a service may take to say what it wants.
const firstMessage = 15 * time.Second

var errDelegateFirst = reason.New(reason.SubscribeFirst, "the first message, and no other, must delegate; it must come within %s", firstMessage)

// StreamCredentials implements the call. This goroutine receives.
func (d delegations) StreamCredentials(call streamCall) error {
	send := func(m *stokerv1.StreamCredentialsResponse) error { return call.Send(response(m)) }
	c, err := carrier.ConnOf(call.Context(), send, d.Log)
	if err != nil {
		return err
	}
	// Only the end of the call wakes Recv.
	late := time.AfterFunc(firstMessage, func() { c.Finish(errDelegateFirst) })
	first, err := call.Recv()
	late.Stop()
	switch {
	case errors.Is(err, io.EOF):
		return errDelegateFirst
	case err != nil:
		return err
	case first.GetDelegate() == nil:
		return errDelegateFirst
	}
	var opened *stream.Stream
	err = carrier.Apart(func() (err error) {
		opened, err = d.open(call.Context(), c, first.GetDelegate())
		return err
	})
	if err != nil {
		return err
	}
	return opened.Close(receive(call, opened, first.GetDelegate()))
}

// open opens the stream of a call.
func (d delegations) open(ctx context.Context, c stream.Conn, wanted *stokerv1.Delegate) (*stream.Stream, error) {
	p, ok := authn.PrincipalFrom(ctx)
	if !ok {
		return nil, reason.New(reason.CertificateRequired, "present the service's certificate")
	}
	p, err := d.Counter.Open(ctx, p, delegation.Request{
		Tenant: wanted.GetTenant(), Grant: wanted.GetGrant(), Purpose: wanted.GetReason(), RequestID: apierr.RequestID(ctx),
	})
	if err != nil {
		return nil, err
	}
	return d.Streams.Open(&p, c)
}

// receive subscribes, and carries out the service's messages until the call
// ends.
func receive(call streamCall, to *stream.Stream, wanted *stokerv1.Delegate) error {
	if err := carrier.Apart(func() error { return to.Handle(subscribe(wanted)) }); err != nil {
		return err
	}
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return carrier.Wait(call.Context())
		}
		if err != nil {
			return err
		}
		if m.GetDelegate() != nil {
			return errDelegateFirst
		}
		if err := to.Handle(request(m)); err != nil {
			return err
		}
	}
}

func subscribe(m *stokerv1.Delegate) stream.Subscribe {
	s := stream.Subscribe{Grants: []string{m.GetGrant()}, Client: m.GetClient()}
	if h := m.GetHeld(); h != nil {
		held := stream.Held{Grant: h.GetGrant(), Credential: lease.Held{ID: h.GetId()}}
		if end := h.GetExpireTime(); end.IsValid() {
			held.Credential.Expires = end.AsTime()
		}
		s.Held = []stream.Held{held}
	}
	return s
}

// request translates a later message. One without content, or with content
// that only newer brokers know, is nil.
func request(m *streamRequest) stream.Request {
	switch m := m.GetMessage().(type) {
	case *stokerv1.DelegationServiceStreamCredentialsRequest_Acknowledge:
		return stream.Acknowledge{CredentialID: m.Acknowledge.GetCredentialId()}
	case *stokerv1.DelegationServiceStreamCredentialsRequest_ReportRefused:
		return stream.ReportRefused{CredentialID: m.ReportRefused.GetCredentialId(), ErrorCode: m.ReportRefused.GetErrorCode()}
	default:
		return nil
	}
}

// response is a message to an agent as one to a service.
func response(m *stokerv1.StreamCredentialsResponse) *streamResponse {
	r := &streamResponse{}
	switch m := m.GetMessage().(type) {
	case *stokerv1.StreamCredentialsResponse_Welcome:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Welcome{Welcome: m.Welcome}
	case *stokerv1.StreamCredentialsResponse_Credential:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Credential{Credential: m.Credential}
	case *stokerv1.StreamCredentialsResponse_Problem:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Problem{Problem: m.Problem}
	case *stokerv1.StreamCredentialsResponse_Revocation:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Revocation{Revocation: m.Revocation}
	case *stokerv1.StreamCredentialsResponse_Reconnect:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Reconnect{Reconnect: m.Reconnect}
	case *stokerv1.StreamCredentialsResponse_Heartbeat:
		r.Message = &stokerv1.DelegationServiceStreamCredentialsResponse_Heartbeat{Heartbeat: m.Heartbeat}
	}
	return r
}
