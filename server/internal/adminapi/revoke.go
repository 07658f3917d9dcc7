package adminapi

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

// maxReason bounds the reason of a revocation, in characters.
const maxReason = 256

// Revoker cuts parties off.
type Revoker interface {
	// Plan gives the revocations that Revoke would make.
	Plan(ctx context.Context, target revocation.Target, why string, by revocation.Operator) ([]storage.Revocation, error)
	// Revoke returns once no replica issues to the party any more.
	Revoke(ctx context.Context, target revocation.Target, why string, by revocation.Operator) ([]storage.Revocation, error)
}

// Revoke implements stokerv1.FleetServiceServer.
func (s fleet) Revoke(ctx context.Context, r *stokerv1.RevokeRequest) (*stokerv1.RevokeResponse, error) {
	if r.GetReason() == "" {
		return nil, invalid("reason", "is missing; say why, for the audit trail")
	}
	if err := checkText("reason", r.GetReason(), maxReason); err != nil {
		return nil, err
	}
	target, err := s.target(ctx, r)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.RevokeResponse{}
	for _, v := range s.Streams() {
		if v.endsWith(target) {
			answer.StreamsEnded++
		}
	}
	act := s.Revoker.Revoke
	if r.GetDryRun() {
		act = s.Revoker.Plan
	}
	revocations, err := act(ctx, target, r.GetReason(), operator(ctx))
	if err != nil {
		return nil, err
	}
	for _, v := range revocations {
		answer.Revocations = append(answer.Revocations, revocationMessage(v))
	}
	return answer, nil
}

// operator is the caller of ctx, as revocations know it.
func operator(ctx context.Context) revocation.Operator {
	caller, _ := authn.PrincipalFrom(ctx)
	return revocation.Operator{
		Name: caller.Name, Identity: caller.Certificate.ID,
		CertificateSerial: caller.Certificate.Serial, CertificateThumbprint: caller.Certificate.Thumbprint,
		Peer: caller.Address, RequestID: apierr.RequestID(ctx),
	}
}

// endsWith says whether the stream ends when the target is revoked. Those that
// lose a grant or a credential are told, and go on.
func (v Stream) endsWith(target revocation.Target) bool {
	switch target.Kind {
	case "tenant":
		return v.TenantID == target.ID
	case "user":
		return v.UserID == target.ID
	case "agent":
		return v.AgentID == target.ID
	case "certificate":
		return v.CertificateSerial == target.ID
	default:
		return false
	}
}

// target finds what the request names.
func (s fleet) target(ctx context.Context, r *stokerv1.RevokeRequest) (revocation.Target, error) {
	switch named := r.GetTarget().(type) {
	case *stokerv1.RevokeRequest_Tenant:
		t, err := s.tenant(ctx, "tenant", named.Tenant)
		return revocation.Target{Kind: "tenant", ID: t.ID, Name: t.Name}, err
	case *stokerv1.RevokeRequest_User:
		return s.userTarget(ctx, named.User)
	case *stokerv1.RevokeRequest_Agent:
		t, name, err := s.qualified(ctx, "agent", named.Agent)
		if err != nil {
			return revocation.Target{}, err
		}
		v, err := s.findAgent(t, "agent", name)
		return revocation.Target{Kind: "agent", ID: v.ID, Name: s.agentKind(t).name(v)}, err
	case *stokerv1.RevokeRequest_Grant:
		t, name, err := s.qualified(ctx, "grant", named.Grant)
		if err != nil {
			return revocation.Target{}, err
		}
		g, err := s.findGrant(t, "grant", name)
		return revocation.Target{Kind: "grant", ID: g.ID, Name: s.grantKind(t).name(g)}, err
	case *stokerv1.RevokeRequest_Credential:
		id := named.Credential
		if err := uuid.Validate(id); err != nil || len(id) != 36 {
			return revocation.Target{}, invalid("credential", "%.70q is no credential's id", id)
		}
		return revocation.Target{Kind: "credential", ID: id, Name: id}, nil
	case *stokerv1.RevokeRequest_Certificate:
		serial, err := pki.ParseSerial(named.Certificate)
		if err != nil {
			return revocation.Target{}, invalid("certificate", "%.70q: %s", named.Certificate, err)
		}
		return revocation.Target{Kind: "certificate", ID: serial, Name: serial}, nil
	default:
		return revocation.Target{}, invalid("target", "is missing; set one of tenant, user, agent, grant, credential, certificate")
	}
}

// userTarget reads login@tenant.
func (s fleet) userTarget(ctx context.Context, text string) (revocation.Target, error) {
	login, tenant, ok := strings.Cut(text, "@")
	if !ok {
		return revocation.Target{}, invalid("user", "%.110q is not written login@tenant", text)
	}
	t, err := s.tenant(ctx, "user", tenant)
	if err != nil {
		return revocation.Target{}, err
	}
	u, err := s.findUser(t, "user", login)
	return revocation.Target{Kind: "user", ID: u.ID, Name: s.userKind(t).name(u)}, err
}

// qualified reads tenant/name.
func (s fleet) qualified(ctx context.Context, field, text string) (storage.Tenant, string, error) {
	tenant, name, ok := strings.Cut(text, "/")
	if !ok {
		return storage.Tenant{}, "", invalid(field, "%.110q is not written tenant/%s", text, field)
	}
	t, err := s.tenant(ctx, field, tenant)
	return t, name, err
}

// ListRevocations implements stokerv1.FleetServiceServer.
func (s fleet) ListRevocations(ctx context.Context, r *stokerv1.ListRevocationsRequest) (*stokerv1.ListRevocationsResponse, error) {
	all := r.GetShowExpired()
	found, next, err := readPage(ctx, s.API, list{"revocations", fmt.Sprint(all)}, page{r.GetPageSize(), r.GetPageToken()},
		func(ctx context.Context, p storage.Page) ([]storage.Revocation, error) {
			return s.Store.ListRevocations(ctx, all, p)
		},
		func(v storage.Revocation) string { return v.ID }, sure(revocationMessage))
	if err != nil {
		return nil, err
	}
	return &stokerv1.ListRevocationsResponse{Revocations: found, NextPageToken: next}, nil
}

var revocationStates = map[storage.RevocationState]stokerv1.RevocationState{
	storage.RevocationLocal:   stokerv1.RevocationState_REVOCATION_STATE_LOCAL,
	storage.RevocationPending: stokerv1.RevocationState_REVOCATION_STATE_PENDING,
	storage.RevocationApplied: stokerv1.RevocationState_REVOCATION_STATE_APPLIED,
	storage.RevocationFailed:  stokerv1.RevocationState_REVOCATION_STATE_FAILED,
	storage.RevocationExpired: stokerv1.RevocationState_REVOCATION_STATE_EXPIRED,
}

func revocationMessage(v storage.Revocation) *stokerv1.RevocationRecord {
	return &stokerv1.RevocationRecord{
		Id: v.ID, TargetKind: v.TargetKind, Target: v.TargetName, Account: v.Account, State: revocationStates[v.State],
		Problem: v.Problem, Reason: v.Reason, Operator: v.Operator,
		BeforeTime: message.Time(v.Before), UntilTime: message.Time(v.Until),
	}
}
