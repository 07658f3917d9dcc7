package carrier

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/stream"
)

// response writes a stream's message for the call with this context.
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
