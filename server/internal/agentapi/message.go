package agentapi

import (
	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
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

func summary(g storage.Grant, l storage.Location) *stokerv1.GrantSummary {
	return &stokerv1.GrantSummary{
		Name: g.Name, Target: message.Target(l, g.Prefix), Access: message.Access(g.Access), Lifetime: durationpb.New(g.Lifetime),
	}
}
