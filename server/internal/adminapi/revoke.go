package adminapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/storage"
)

// maxReason bounds the reason of a revocation, in characters.
const maxReason = 256

// party is whom an operator cuts off.
type party struct {
	kind, id string
	// name is what the operator typed.
	name     string
	tenantID string
	// sessionName narrows a single credential's revocation.
	sessionName string
	// about writes the party's ids and names into a record.
	about func(*storage.AuditRecord)
	// accounts are those that may have issued to the party, with the moment
	// when the last credential issued so far has expired.
	accounts map[string]time.Time
	// refuse makes the broker refuse the party: it is in storage when refuse
	// returns. Nil: the revocation itself does.
	refuse func(ctx context.Context) error
	// ends says whether the revocation ends the stream.
	ends func(Stream) bool
}

// Revoke implements stokerv1.FleetServiceServer.
//
// The broker refuses the party first, so that nothing new is issued while the
// revocations are written, one for each account.
func (s fleet) Revoke(ctx context.Context, r *stokerv1.RevokeRequest) (*stokerv1.RevokeResponse, error) {
	if r.GetReason() == "" {
		return nil, invalid("reason", "is missing; say why, for the audit trail")
	}
	if err := checkText("reason", r.GetReason(), maxReason); err != nil {
		return nil, err
	}
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	p, err := s.party(ctx, r)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.RevokeResponse{}
	for _, v := range s.Streams() {
		if p.ends(v) {
			answer.StreamsEnded++
		}
	}
	revocations, err := s.plan(ctx, p, r.GetReason())
	if err != nil {
		return nil, err
	}
	if !r.GetDryRun() {
		if revocations, err = s.cutOff(ctx, p, revocations); err != nil {
			return nil, err
		}
	}
	for _, v := range revocations {
		answer.Revocations = append(answer.Revocations, revocationMessage(v))
	}
	return answer, nil
}

// plan makes the revocations, one for each account in order of name.
func (s fleet) plan(ctx context.Context, p party, why string) ([]storage.Revocation, error) {
	now := s.Now()
	var plan []storage.Revocation
	for account, until := range p.accounts {
		plan = append(plan, storage.Revocation{
			TargetKind: p.kind, TargetID: p.id, TargetName: p.name, TenantID: p.tenantID,
			Account: account, SessionName: p.sessionName, Before: now, Until: until,
			State: storage.RevocationLocal, Reason: why, Operator: operatorName(ctx),
		})
	}
	slices.SortFunc(plan, func(a, b storage.Revocation) int { return strings.Compare(a.Account, b.Account) })
	for i := range plan {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an id: %w", err)
		}
		plan[i].ID = id.String()
	}
	return plan, nil
}

// cutOff refuses the party and stores the revocations. It stops at the first
// failure: calling again is safe, and needed.
func (s fleet) cutOff(ctx context.Context, p party, plan []storage.Revocation) ([]storage.Revocation, error) {
	if p.refuse != nil {
		if err := p.refuse(ctx); err != nil {
			return nil, err
		}
	}
	for i, v := range plan {
		record := s.record(ctx, audit.RevocationCreated)
		record.Reason = "CREDENTIAL_REVOKED"
		p.about(&record)
		record.Account, record.SessionName = v.Account, v.SessionName
		record.Detail["kind"], record.Detail["name"], record.Detail["reason"] = v.TargetKind, v.TargetName, v.Reason
		record.Detail["revocation_id"] = v.ID
		err := s.carryOut(ctx, record, func(ctx context.Context) (err error) {
			plan[i], err = s.Store.CreateRevocation(ctx, v)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// party finds what the request names.
func (s fleet) party(ctx context.Context, r *stokerv1.RevokeRequest) (party, error) {
	switch target := r.GetTarget().(type) {
	case *stokerv1.RevokeRequest_Tenant:
		return s.tenantParty(ctx, target.Tenant, r.GetReason())
	case *stokerv1.RevokeRequest_User:
		return s.userParty(ctx, target.User, r.GetReason())
	case *stokerv1.RevokeRequest_Agent:
		return s.agentParty(ctx, target.Agent, r.GetReason())
	case *stokerv1.RevokeRequest_Grant:
		return s.grantParty(ctx, target.Grant, r.GetReason())
	case *stokerv1.RevokeRequest_Credential:
		return s.credentialParty(ctx, target.Credential)
	case *stokerv1.RevokeRequest_Certificate:
		return s.certificateParty(target.Certificate, r.GetReason())
	default:
		return party{}, invalid("target", "is missing; set one of tenant, user, agent, grant, credential, certificate")
	}
}

// issuers are the accounts of grants. A credential may have been issued when
// the grant's lifetime was longer than now, so the account's maximum counts.
func (s fleet) issuers(grants ...storage.Grant) map[string]time.Time {
	accounts := map[string]time.Time{}
	for _, g := range grants {
		if l, ok := s.Directory.Location(g.LocationID); ok {
			accounts[l.Account] = s.Now().Add(max(g.Lifetime, s.Accounts[l.Account].MaxLifetime))
		}
	}
	return accounts
}

// disabling makes the refusal of a party that is an entity: it is disabled.
func disabling[T any](s fleet, k kind[T], known T, why string, disabled func(*T) *bool) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := update(ctx, s.API, k.because(why), known, "", func(v T) (T, error) {
			*disabled(&v) = true
			return v, nil
		})
		return err
	}
}

// because adds why to the records of an entity's changes.
func (k kind[T]) because(why string) kind[T] {
	about := k.about
	k.about = func(v T, r *storage.AuditRecord) {
		about(v, r)
		r.Detail["reason"] = why
	}
	return k
}

// partyOf is the party that an entity is.
func partyOf[T any](s fleet, k kind[T], known T, tenantID, why string, disabled func(*T) *bool) party {
	return party{
		kind: k.noun, id: k.meta(&known).ID, name: k.name(known), tenantID: tenantID,
		about:  func(r *storage.AuditRecord) { k.about(known, r) },
		refuse: disabling(s, k, known, why, disabled),
	}
}

func (s fleet) tenantParty(ctx context.Context, name, why string) (party, error) {
	t, err := s.tenant(ctx, "tenant", name)
	if err != nil {
		return party{}, err
	}
	p := partyOf(s, s.tenantKind(), t, t.ID, why, func(t *storage.Tenant) *bool { return &t.Disabled })
	p.accounts = s.issuers(s.Directory.GrantsOf(t.ID)...)
	p.ends = func(v Stream) bool { return v.TenantID == t.ID }
	return p, nil
}

func (s fleet) userParty(ctx context.Context, name, why string) (party, error) {
	login, tenant, ok := strings.Cut(name, "@")
	if !ok {
		return party{}, invalid("user", "%.110q is not written login@tenant", name)
	}
	t, err := s.tenant(ctx, "user", tenant)
	if err != nil {
		return party{}, err
	}
	u, err := s.findUser(t, "user", login)
	if err != nil {
		return party{}, err
	}
	p := partyOf(s, s.userKind(t), u, t.ID, why, func(u *storage.User) *bool { return &u.Disabled })
	p.accounts = s.issuers(s.Directory.GrantsFor(t.ID, u.ID)...)
	p.ends = func(v Stream) bool { return v.UserID == u.ID }
	return p, nil
}

func (s fleet) agentParty(ctx context.Context, name, why string) (party, error) {
	t, agent, err := s.qualified(ctx, "agent", name)
	if err != nil {
		return party{}, err
	}
	v, err := s.findAgent(t, "agent", agent)
	if err != nil {
		return party{}, err
	}
	p := partyOf(s, s.agentKind(t), v, t.ID, why, func(v *storage.Agent) *bool { return &v.Disabled })
	// Any user of the tenant may have logged in from it.
	p.accounts = s.issuers(s.Directory.GrantsOf(t.ID)...)
	p.ends = func(stream Stream) bool { return stream.AgentID == v.ID }
	return p, nil
}

func (s fleet) grantParty(ctx context.Context, name, why string) (party, error) {
	t, grant, err := s.qualified(ctx, "grant", name)
	if err != nil {
		return party{}, err
	}
	g, err := s.findGrant(t, "grant", grant)
	if err != nil {
		return party{}, err
	}
	p := partyOf(s, s.grantKind(t), g, t.ID, why, func(g *storage.Grant) *bool { return &g.Disabled })
	p.accounts = s.issuers(g)
	p.ends = func(Stream) bool { return false } // they are told, and go on with other grants
	return p, nil
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

func (s fleet) credentialParty(ctx context.Context, id string) (party, error) {
	if err := uuid.Validate(id); err != nil || len(id) != 36 {
		return party{}, invalid("credential", "%.70q is no credential's id", id)
	}
	issue, err := s.Store.FindIssue(ctx, id)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return party{}, unknown("credential", id).Because(err)
	case err != nil:
		return party{}, err
	case !issue.Expires.After(s.Now()):
		return party{}, invalid("credential", "%q ended by itself on %s", id, issue.Expires.UTC().Format(time.RFC3339))
	}
	return party{
		kind: "credential", id: id, name: id, tenantID: issue.TenantID, sessionName: issue.SessionName,
		about: func(r *storage.AuditRecord) {
			r.TenantID, r.Tenant, r.UserID, r.Login = issue.TenantID, issue.Tenant, issue.UserID, issue.Login
			r.AgentID, r.Agent, r.GrantID, r.Grant = issue.AgentID, issue.Agent, issue.GrantID, issue.Grant
			r.CredentialID, r.AccessKeyID, r.Expires = id, issue.AccessKeyID, issue.Expires
		},
		accounts: map[string]time.Time{issue.Account: issue.Expires},
		ends:     func(Stream) bool { return false },
	}, nil
}

func (s fleet) certificateParty(text, why string) (party, error) {
	serial, err := pki.ParseSerial(text)
	if err != nil {
		return party{}, invalid("certificate", "%.70q: %s", text, err)
	}
	return party{
		kind: "certificate", id: serial, name: serial,
		about: func(r *storage.AuditRecord) {},
		// The account is none of a certificate's business. Until is unknown for
		// one of a foreign authority; a revoked certificate stays so anyway.
		accounts: map[string]time.Time{"": {}},
		refuse:   func(ctx context.Context) error { return s.revokeCertificate(ctx, serial, why) },
		ends:     func(v Stream) bool { return v.CertificateSerial == serial },
	}, nil
}

func (s fleet) revokeCertificate(ctx context.Context, serial, why string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	record := s.record(ctx, audit.CertificateRevoked)
	record.Reason = "CERTIFICATE_REVOKED"
	record.Detail["kind"], record.Detail["name"], record.Detail["reason"] = "certificate", serial, why
	return s.carryOut(ctx, record, func(ctx context.Context) error {
		_, err := s.Store.RevokeCertificate(ctx, storage.Certificate{
			Meta: storage.Meta{ID: id.String()}, Serial: serial, RevokedAt: s.Now(), RevocationReason: why,
		})
		return err
	})
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
