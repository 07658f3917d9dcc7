package agentapi

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/stream"
)

// request translates an agent's message. One without content, or with content
// that only newer brokers know, is nil.
func request(m *stokerv1.StreamCredentialsRequest) stream.Request {
	switch m := m.GetMessage().(type) {
	case *stokerv1.StreamCredentialsRequest_Subscribe:
		return subscribe(m.Subscribe)
	case *stokerv1.StreamCredentialsRequest_Unsubscribe:
		return stream.Unsubscribe{Grants: m.Unsubscribe.GetGrants()}
	case *stokerv1.StreamCredentialsRequest_Acknowledge:
		return stream.Acknowledge{CredentialID: m.Acknowledge.GetCredentialId()}
	case *stokerv1.StreamCredentialsRequest_ReportRefused:
		return stream.ReportRefused{CredentialID: m.ReportRefused.GetCredentialId(), ErrorCode: m.ReportRefused.GetErrorCode()}
	default:
		return nil
	}
}

func subscribe(m *stokerv1.Subscribe) stream.Subscribe {
	held := make([]stream.Held, len(m.GetHeld()))
	for i, h := range m.GetHeld() {
		held[i] = stream.Held{Grant: h.GetGrant(), Credential: lease.Held{ID: h.GetId()}}
		if end := h.GetExpireTime(); end.IsValid() {
			held[i].Credential.Expires = end.AsTime()
		}
	}
	return stream.Subscribe{Grants: m.GetGrants(), Held: held, Client: m.GetClient()}
}

// response translates a message to the agent.
func response(ctx context.Context, m stream.Message) *stokerv1.StreamCredentialsResponse {
	r := &stokerv1.StreamCredentialsResponse{}
	switch {
	case m.Welcome != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Welcome{Welcome: &stokerv1.Welcome{
			Identity:          message.Identity(m.Welcome.Principal),
			ServerTime:        timestamppb.New(m.Welcome.Time),
			HeartbeatInterval: durationpb.New(m.Welcome.Heartbeat),
			StreamId:          m.Welcome.StreamID,
		}}
	case m.Credential != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Credential{Credential: message.Credential(m.Credential)}
	case m.Problem != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Problem{Problem: &stokerv1.Problem{
			Grant:     m.Problem.Grant,
			Status:    apierr.Status(ctx, m.Problem.Err).Proto(),
			RetryTime: message.Time(m.Problem.RetryAt),
			GoodUntil: message.Time(m.Problem.GoodUntil),
		}}
	case m.Revoked != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Revocation{Revocation: &stokerv1.Revocation{
			Grant:        m.Revoked.Grant,
			CredentialId: m.Revoked.CredentialID,
			Status:       apierr.Status(ctx, m.Revoked.Err).Proto(),
		}}
	case m.Reconnect != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Reconnect{Reconnect: &stokerv1.Reconnect{
			Delay: durationpb.New(m.Reconnect.Delay),
		}}
	case m.Heartbeat != nil:
		r.Message = &stokerv1.StreamCredentialsResponse_Heartbeat{Heartbeat: &stokerv1.Heartbeat{
			ServerTime: timestamppb.New(m.Heartbeat.Time),
		}}
	}
	return r
}

func summary(g storage.Grant, l storage.Location) *stokerv1.GrantSummary {
	return &stokerv1.GrantSummary{
		Name: g.Name, Target: message.Target(l, g.Prefix), Access: message.Access(g.Access), Lifetime: durationpb.New(g.Lifetime),
	}
}
