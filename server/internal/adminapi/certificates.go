package adminapi

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/internal/jointoken"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// authority is the built-in authority, where the broker has one.
func (a *API) authority() (Authority, error) {
	if a.Authority == nil {
		return nil, reason.New(reason.NoAuthority, "the broker has no certificate authority of its own; get agents' certificates from the provider's PKI")
	}
	return a.Authority, nil
}

// IssueAgentCertificate implements stokerv1.AgentServiceServer.
func (s agents) IssueAgentCertificate(ctx context.Context, r *stokerv1.IssueAgentCertificateRequest) (*stokerv1.IssueAgentCertificateResponse, error) {
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseRequest(r.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	t, v, err := s.find(ctx, "", r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	cert, err := authority.SignAgent(key, t.Name, v.Name, s.CertificateLifetime)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of agent %s/%s: %w", t.Name, v.Name, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	known := storage.Certificate{
		Meta:   storage.Meta{ID: id.String()},
		Serial: pki.Serial(cert), Thumbprint: pki.Thumbprint(cert), Subject: cert.URIs[0].String(),
		AgentID: v.ID, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	record := s.record(ctx, audit.CertificateIssued)
	s.agentKind(t).note(&record, v)
	record.Detail["serial"], record.Detail["thumbprint"] = known.Serial, known.Thumbprint
	record.Detail["not_after"] = known.NotAfter.UTC().Format(time.RFC3339)
	// The certificate leaves the broker only once it is recorded, twice: by
	// whom in the trail, and in storage, where a revocation finds it.
	err = s.carryOut(ctx, record, func(ctx context.Context) error {
		_, err := s.Store.RecordCertificate(ctx, known)
		return s.agentKind(t).explain(v, err)
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.IssueAgentCertificateResponse{Certificate: &stokerv1.CertificateBundle{
		CertificatePem: pki.EncodeCertificates(cert), AuthorityPem: authority.CertificatePEM(),
		SpiffeId: known.Subject, Serial: known.Serial, NotAfter: message.Time(cert.NotAfter),
	}}, nil
}

// InviteAgent implements stokerv1.AgentServiceServer.
func (s agents) InviteAgent(ctx context.Context, r *stokerv1.InviteAgentRequest) (*stokerv1.InviteAgentResponse, error) {
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	if err := nameForm.check("name", r.GetName()); err != nil {
		return nil, err
	}
	t, err := s.tenant(ctx, "tenant", r.GetTenant())
	if err != nil {
		return nil, err
	}
	v, err := s.ensure(ctx, t, r.GetName())
	if err != nil {
		return nil, err
	}
	token, err := jointoken.New(authority.Pin())
	if err != nil {
		return nil, err
	}
	record := s.record(ctx, audit.AgentInvited)
	s.agentKind(t).note(&record, v)
	now := s.Now()
	expires := now.Add(s.TokenLifetime)
	record.Detail["join_token_id"] = token.ID()
	record.Detail["expires"] = expires.UTC().Format(time.RFC3339)
	err = s.carryOut(ctx, record, func(ctx context.Context) error {
		return s.agentKind(t).explain(v, s.Store.CreateJoinToken(ctx, storage.JoinToken{
			ID: token.ID(), Hash: token.Hash(), TenantID: t.ID, AgentName: v.Name,
			CreatedBy: record.Actor, CreatedAt: now, Expires: expires,
		}))
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.InviteAgentResponse{JoinToken: token.Reveal(), ExpireTime: message.Time(expires)}, nil
}

// ensure gives the agent of that name, and makes it where there is none.
func (s agents) ensure(ctx context.Context, t storage.Tenant, name string) (storage.Agent, error) {
	if v, ok := s.Directory.AgentByName(t.ID, name); ok {
		return v, nil
	}
	v, err := create(ctx, s.API, s.agentKind(t), storage.Agent{TenantID: t.ID, Name: name})
	if !reason.Is(err, reason.AlreadyExists) {
		return v, err
	}
	// Somebody else made it at this moment.
	if err := s.sync(ctx); err != nil {
		return v, err
	}
	return s.findAgent(t, "name", name)
}
