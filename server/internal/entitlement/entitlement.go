package entitlement

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Directory is what is asked of the directory.
type Directory interface {
	Sequence() int64
	Sync(ctx context.Context) error
	Tenant(id string) (storage.Tenant, bool)
	Grant(id string) (storage.Grant, bool)
	Location(id string) (storage.Location, bool)
	RevokedCertificate(id string) (storage.Certificate, bool)
	Revocation(id string) (storage.Revocation, bool)
	Revocations() []storage.Revocation
}

// Checker says whether a principal is still good, and for whom a service may
// act.
type Checker interface {
	Check(p authn.Principal) error
	AllowDelegation(p authn.Principal, tenant, access string) error
}

// Authority is the lease.Authority of the broker.
type Authority struct {
	directory Directory
	checker   Checker

	mu       sync.RWMutex
	policies map[string]built // by grant id

	// revoked is an index of the directory's revocations; nil: to be made.
	revoked atomic.Pointer[revoked]
}

// built is a session policy and what it was made from.
type built struct {
	grant, location version
	text, hash      string
	err             error
}

// version is one state of an entity. The time tells apart what has the same
// revision after a restoration of the storage.
type version struct {
	id       string
	revision int64
	updated  int64 // Unix microseconds
}

func versionOf(m storage.Meta) version { return version{m.ID, m.Revision, m.UpdatedAt.UnixMicro()} }

// New makes an Authority.
func New(d Directory, c Checker) *Authority {
	return &Authority{directory: d, checker: c, policies: map[string]built{}}
}

// principal is a lease's holder as authn checks it: an agent with its user, or
// a service.
func principal(h lease.Holder) (authn.Principal, error) {
	p := authn.Principal{
		Peer: authn.Peer{
			Certificate: authn.Certificate{
				ID: h.Actor, Serial: h.Certificate.Serial, Thumbprint: h.Certificate.Thumbprint, NotAfter: h.Certificate.NotAfter,
				Vouchers: h.Certificate.Vouchers,
			},
			Address: h.Peer,
		},
		TenantID: h.TenantID, AgentID: h.AgentID, UserID: h.UserID, Login: h.Login,
		PasswordVersion: h.PasswordVersion, SessionID: h.SessionID,
	}
	if h.AgentID != "" && h.UserID != "" && h.TenantID != "" {
		p.Kind, p.Tenant, p.Agent = authn.Agent, h.Tenant, h.Agent
		return p, nil
	}
	who, err := pki.ParseIdentity(h.Actor)
	if err != nil || who.Kind != pki.Service || h.AgentID != "" || h.UserID != "" {
		return p, reason.New(reason.LoginRequired, "credentials go to an agent with a logged-in user, or to a service")
	}
	p.Kind, p.Name, p.TenantID = authn.Service, who.Name, ""
	return p, nil
}

// Entitle gives what the grant gives the holder now, or why it gives nothing.
func (a *Authority) Entitle(h lease.Holder, grantID string) (lease.Entitlement, error) {
	// The fence is read first: whatever is looked up after it is at least as
	// new, so that a change meanwhile makes the fence too old, never too new.
	fence := a.directory.Sequence()
	caller, err := principal(h)
	if err != nil {
		return lease.Entitlement{}, err
	}
	if err := a.checker.Check(caller); err != nil {
		return lease.Entitlement{}, err
	}
	grant, ok := a.directory.Grant(grantID)
	if !ok {
		return lease.Entitlement{}, reason.New(reason.GrantDeleted, "the grant was deleted; stop using its credentials")
	}
	if grant.TenantID != h.TenantID || grant.UserID != "" && grant.UserID != h.UserID {
		return lease.Entitlement{}, reason.New(reason.GrantUnknown, "the user has no such grant; see ListGrants")
	}
	if grant.Disabled {
		return lease.Entitlement{}, reason.New(reason.GrantDisabled, "the grant %q is disabled; ask the provider", grant.Name).With("grant", grant.Name)
	}
	if caller.Kind == authn.Service {
		if err := a.allowed(caller, grant); err != nil {
			return lease.Entitlement{}, err
		}
	}
	location, ok := a.directory.Location(grant.LocationID)
	if !ok {
		return lease.Entitlement{}, reason.New(reason.GrantInvalid, "the grant %q has no location; ask the provider", grant.Name).With("grant", grant.Name)
	}
	text, hash, err := a.policy(grant, location)
	if err != nil {
		return lease.Entitlement{}, err
	}
	return lease.Entitlement{
		Grant: grant, Location: location, Account: location.Account, Policy: text, PolicyHash: hash, Fence: fence,
	}, nil
}

// allowed says whether a service may have the grant: its rule lets it, and the
// tenant, which no login vouches for, is there and enabled.
func (a *Authority) allowed(p authn.Principal, g storage.Grant) error {
	tenant, ok := a.directory.Tenant(g.TenantID)
	switch {
	case !ok:
		return reason.New(reason.TenantUnknown, "the tenant does not exist any more")
	case tenant.Disabled:
		return reason.New(reason.TenantDisabled, "the tenant is disabled")
	}
	return a.checker.AllowDelegation(p, tenant.Name, g.Access)
}

// policy gives the grant's session policy, built once for each revision of the
// grant and its location.
func (a *Authority) policy(g storage.Grant, l storage.Location) (text, hash string, err error) {
	a.mu.RLock()
	b, ok := a.policies[g.ID]
	a.mu.RUnlock()
	if !ok || b.grant != versionOf(g.Meta) || b.location != versionOf(l.Meta) {
		b = build(g, l)
		a.mu.Lock()
		a.policies[g.ID] = b
		a.mu.Unlock()
	}
	return b.text, b.hash, b.err
}

func build(g storage.Grant, l storage.Location) built {
	b := built{grant: versionOf(g.Meta), location: versionOf(l.Meta)}
	document, err := policy.Build(Scope(g, l))
	if err != nil {
		b.err = reason.New(reason.GrantInvalid, "no session policy can be made of the grant %q; ask the provider", g.Name).
			With("grant", g.Name).Because(err)
		return b
	}
	b.text, b.hash = document.String(), document.Hash()
	return b
}

// Scope is what a grant at a location opens, in the terms of its policy.
func Scope(g storage.Grant, l storage.Location) policy.Scope {
	return policy.Scope{
		Bucket: l.Bucket, Prefix: g.Prefix, Access: policy.Access(g.Access), Actions: slices.Clone(g.Actions),
		KMSKeyARN: l.KMSKeyARN, Region: l.Region, Partition: partition(l),
	}
}

// Forget drops what is kept of grants that were deleted, and of revocations
// that changed. It is an observer of the directory.
func (a *Authority) Forget(changes []storage.Change) {
	for _, c := range changes {
		switch c.Kind {
		case storage.KindRevocation:
			a.revoked.Store(nil)
		case storage.KindGrant:
			if _, ok := a.directory.Grant(c.ID); !ok {
				a.mu.Lock()
				delete(a.policies, c.ID)
				a.mu.Unlock()
			}
		}
	}
}

// revoked has the latest revocation of each party, as of one sequence of the
// directory: a fleet is asked about at once, and each answer is to cost the
// same however many revocations there are.
type revoked struct {
	sequence int64
	before   map[party]time.Time
}

// party is what a revocation names.
type party struct{ kind, id string }

// revocations gives an index that is at least as new as the call.
func (a *Authority) revocations() *revoked {
	sequence := a.directory.Sequence()
	if r := a.revoked.Load(); r != nil && r.sequence == sequence {
		return r
	}
	r := &revoked{sequence: sequence, before: map[party]time.Time{}}
	for _, v := range a.directory.Revocations() {
		p := party{v.TargetKind, v.TargetID}
		if latest, ok := r.before[p]; !ok || latest.Before(v.Before) {
			r.before[p] = v.Before
		}
	}
	a.revoked.Store(r)
	return r
}

// Revoked says whether a revocation covers a credential that was issued to the
// holder under the grant at that time.
func (a *Authority) Revoked(h lease.Holder, grantID, credentialID string, issued time.Time) bool {
	all := a.revocations().before
	if len(all) == 0 {
		return false
	}
	if _, ok := all[party{"credential", credentialID}]; ok {
		return true
	}
	for _, p := range [...]party{{"tenant", h.TenantID}, {"user", h.UserID}, {"agent", h.AgentID}, {"grant", grantID}} {
		// At the very moment counts as before: the clocks of two replicas may
		// stand a little apart.
		if before, ok := all[p]; ok && p.id != "" && !issued.After(before) {
			return true
		}
	}
	return false
}

// RevokedSerial gives the serial number of a revoked certificate.
func (a *Authority) RevokedSerial(certificateID string) (string, bool) {
	c, ok := a.directory.RevokedCertificate(certificateID)
	return c.Serial, ok
}

// Revocation finds a revocation by id.
func (a *Authority) Revocation(id string) (storage.Revocation, bool) {
	return a.directory.Revocation(id)
}

// Sync returns once everything committed before the call is known here.
func (a *Authority) Sync(ctx context.Context) error { return a.directory.Sync(ctx) }

var _ lease.Authority = (*Authority)(nil)

// partition is the AWS partition that a location's region lies in. Other S3
// services use the ARNs of the first.
func partition(l storage.Location) string {
	switch {
	case l.Endpoint == "" && strings.HasPrefix(l.Region, "cn-"):
		return "aws-cn"
	case l.Endpoint == "" && strings.HasPrefix(l.Region, "us-gov-"):
		return "aws-us-gov"
	default:
		return "aws"
	}
}
