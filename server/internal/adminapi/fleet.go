package adminapi

import (
	"cmp"
	"context"
	"slices"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/message"
)

// Stream is one open StreamCredentials call, as the list of them shows it.
type Stream struct {
	ID               string
	TenantID, Tenant string
	AgentID, Agent   string
	UserID, Login    string
	// Service and Purpose are set for a service's stream.
	Service, Purpose string
	// Peer is the agent's network address, Client what it says that it runs.
	Peer, Client      string
	CertificateSerial string
	// CertificateFrom and CertificateTo are the certificate's life.
	CertificateFrom, CertificateTo time.Time
	Opened                         time.Time
	Grants                         []StreamGrant
	// Pending is how many messages wait to be sent.
	Pending int
}

// StreamGrant is a grant that a stream subscribed to.
type StreamGrant struct {
	Grant string
	// CredentialID is what the agent has; empty: nothing yet.
	CredentialID          string
	Expires, Acknowledged time.Time
}

type fleet struct {
	stokerv1.UnsafeFleetServiceServer
	*API
}

// place orders streams: oldest first. A stream's id is a UUIDv7, and so tells
// apart those of one moment.
func (v Stream) place() string {
	return v.Opened.UTC().Format("2006-01-02T15:04:05.000000000") + v.ID
}

// ListStreams implements stokerv1.FleetServiceServer.
func (s fleet) ListStreams(ctx context.Context, r *stokerv1.ListStreamsRequest) (*stokerv1.ListStreamsResponse, error) {
	if r.GetTenant() != "" {
		if _, err := s.tenant(ctx, "tenant", r.GetTenant()); err != nil {
			return nil, err
		}
	}
	if r.GetAgent() != "" {
		if err := nameForm.check("agent", r.GetAgent()); err != nil {
			return nil, err
		}
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	selection := list{"streams", r.GetTenant(), r.GetAgent()}
	after, err := s.pages.place(selection, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(s.Streams(), func(v Stream) bool {
		return r.GetTenant() != "" && v.Tenant != r.GetTenant() || r.GetAgent() != "" && v.Agent != r.GetAgent() || v.place() <= after
	})
	slices.SortFunc(found, func(a, b Stream) int { return cmp.Compare(a.place(), b.place()) })
	answer := &stokerv1.ListStreamsResponse{}
	if len(found) > size {
		found = found[:size]
		answer.NextPageToken = s.pages.token(selection, found[size-1].place())
	}
	for _, v := range found {
		answer.Streams = append(answer.Streams, v.message())
	}
	return answer, nil
}

func (v Stream) message() *stokerv1.Stream {
	m := &stokerv1.Stream{
		Id: v.ID, Tenant: v.Tenant, Agent: v.Agent, Login: v.Login, Peer: v.Peer, Client: v.Client,
		CertificateSerial: v.CertificateSerial, OpenTime: message.Time(v.Opened), Pending: int32(min(v.Pending, 1<<30)),
		Service: v.Service, Reason: v.Purpose,
	}
	for _, g := range v.Grants {
		m.Grants = append(m.Grants, &stokerv1.StreamGrant{
			Grant: g.Grant, CredentialId: g.CredentialID, ExpireTime: message.Time(g.Expires), AcknowledgeTime: message.Time(g.Acknowledged),
		})
	}
	return m
}
