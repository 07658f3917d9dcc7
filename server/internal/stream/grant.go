package stream

import (
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Finder finds grants by name; *directory.Directory is one.
type Finder interface {
	GrantByName(tenantID, name string) (storage.Grant, bool)
}

// Find gives the caller's grant of that name, disabled or not: refusing a
// disabled one is for its lease, which also records it. GRANT_UNKNOWN: the
// caller has none, be it that there is none or that it is somebody else's,
// which the caller must not be able to tell apart.
func Find(in Finder, p authn.Principal, name string) (storage.Grant, *reason.Error) {
	g, ok := in.GrantByName(p.TenantID, name)
	if !ok || !owns(p, g) {
		return storage.Grant{}, reason.New(reason.GrantUnknown, "you have no grant of this name; see ListGrants").With("grant", name)
	}
	return g, nil
}

// owns says whether the grant is the caller's own or the whole tenant's.
func owns(p authn.Principal, g storage.Grant) bool {
	return g.TenantID == p.TenantID && (g.UserID == "" || g.UserID == p.UserID)
}

// HolderOf is the caller as the leases know it.
func HolderOf(p authn.Principal) lease.Holder {
	return lease.Holder{
		TenantID: p.TenantID, Tenant: p.Tenant,
		UserID: p.UserID, Login: p.Login,
		AgentID: p.AgentID, Agent: p.Agent,
		SessionID:       p.SessionID,
		PasswordVersion: p.PasswordVersion,
		Certificate: lease.Certificate{
			Serial:     p.Certificate.Serial,
			Thumbprint: p.Certificate.Thumbprint,
			NotAfter:   p.Certificate.NotAfter,
			Vouchers:   p.Certificate.Vouchers,
		},
		Actor:   p.Certificate.ID,
		Peer:    p.Address,
		Purpose: p.Purpose,
	}
}
