package delegation

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// maxPurpose bounds a purpose, in characters.
const maxPurpose = 256

// appends bounds how often one issue is recorded anew because the change feed
// moved on meanwhile.
const appends = 8

// Directory finds tenants and grants.
type Directory interface {
	Sequence() int64
	Sync(ctx context.Context) error
	TenantByName(name string) (storage.Tenant, bool)
	GrantByName(tenantID, name string) (storage.Grant, bool)
}

// Rules says for whom a service may act; *authn.Authenticator does.
type Rules interface {
	Check(p authn.Principal) error
	AllowDelegation(p authn.Principal, tenant, access string) error
}

// Leases gives credentials; *lease.Manager does.
type Leases interface {
	Credential(ctx context.Context, h lease.Holder, grantID string, minLife time.Duration) (lease.Credential, error)
}

// Trail is the audit trail.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Config is what a Counter needs; all of it is required.
type Config struct {
	Directory Directory
	Rules     Rules
	Leases    Leases
	Trail     Trail
	Log       *slog.Logger
}

// Counter is where services ask. It is safe for concurrent use.
type Counter struct{ Config }

// New opens a Counter.
func New(c Config) *Counter { return &Counter{c} }

// Request is what a service asks for.
type Request struct {
	// Tenant and Grant are names.
	Tenant, Grant string
	// Purpose is what for, 1 to 256 printable characters.
	Purpose string
	// MinLife is the least life that the credential must have left; 0 is a
	// third of the grant's lifetime.
	MinLife time.Duration
	// RequestID is the call's.
	RequestID string
}

// Issue gives the service a credential under the tenant's grant. The record of
// its purpose is durable before the credential is returned.
func (c *Counter) Issue(ctx context.Context, p authn.Principal, r Request) (lease.Credential, error) {
	if err := checkPurpose(r.Purpose); err != nil {
		return lease.Credential{}, err
	}
	rec := begin(p, r)
	tenant, grant, err := c.find(p, r)
	if err != nil {
		return lease.Credential{}, c.refused(ctx, rec, err)
	}
	rec.TenantID, rec.GrantID = tenant.ID, grant.ID
	holder := lease.Holder{
		TenantID: tenant.ID, Tenant: tenant.Name, Actor: p.Certificate.ID, Peer: p.Address, Purpose: r.Purpose,
		Certificate: lease.Certificate{
			Serial: p.Certificate.Serial, Thumbprint: p.Certificate.Thumbprint, NotAfter: p.Certificate.NotAfter, Vouchers: p.Certificate.Vouchers,
		},
	}
	for range appends {
		// Read before the credential is asked for: if anything changes after
		// that, the record fails and the entitlement is looked at again.
		fence := c.Directory.Sequence()
		credential, err := c.Leases.Credential(ctx, holder, grant.ID, r.MinLife)
		if err != nil {
			return lease.Credential{}, c.refused(ctx, rec, err)
		}
		issued := rec
		issued.CredentialID, issued.AccessKeyID, issued.SessionName = credential.ID, credential.AccessKeyID, credential.SessionName
		issued.PolicyHash, issued.Expires = credential.PolicyHash, credential.Expires
		_, err = c.Trail.Append(ctx, issued, fence)
		if err == nil {
			return credential, nil
		}
		if !errors.Is(err, audit.ErrStale) {
			return lease.Credential{}, err
		}
		if err := c.Directory.Sync(ctx); err != nil {
			return lease.Credential{}, err
		}
	}
	return lease.Credential{}, reason.New(reason.StorageUnavailable, "changes come faster than a credential can be recorded; try again").After(time.Second)
}

// Open admits the service to a stream for the tenant's grant: it gives the
// service as it acts for the tenant, for this purpose. The record of that is
// durable before Open returns. What the stream is issued is recorded by its
// lease, with the purpose.
func (c *Counter) Open(ctx context.Context, p authn.Principal, r Request) (authn.Principal, error) {
	if err := checkPurpose(r.Purpose); err != nil {
		return authn.Principal{}, err
	}
	rec := begin(p, r)
	tenant, grant, err := c.find(p, r)
	if err != nil {
		return authn.Principal{}, c.refused(ctx, rec, err)
	}
	rec.Event, rec.TenantID, rec.GrantID = string(audit.DelegationOpened), tenant.ID, grant.ID
	if _, err := c.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		return authn.Principal{}, err
	}
	p.TenantID, p.Tenant, p.Purpose = tenant.ID, tenant.Name, r.Purpose
	return p, nil
}

// begin begins the record of a request.
func begin(p authn.Principal, r Request) storage.AuditRecord {
	return storage.AuditRecord{
		Event: string(audit.DelegationIssued), Actor: p.Certificate.ID, Peer: p.Address, RequestID: r.RequestID,
		CertificateSerial: p.Certificate.Serial, CertificateThumbprint: p.Certificate.Thumbprint,
		Tenant: r.Tenant, Grant: r.Grant, Detail: map[string]string{lease.DetailPurpose: r.Purpose},
	}
}

// find looks the grant up and asks whether the service may use it. A service
// without a rule for the tenant does not learn whether the tenant exists.
func (c *Counter) find(p authn.Principal, r Request) (storage.Tenant, storage.Grant, error) {
	if err := c.Rules.Check(p); err != nil {
		return storage.Tenant{}, storage.Grant{}, err
	}
	tenant, known := c.Directory.TenantByName(r.Tenant)
	grant, found := c.Directory.GrantByName(tenant.ID, r.Grant)
	if err := c.Rules.AllowDelegation(p, r.Tenant, grant.Access); err != nil && (known && found || !c.mayKnow(p, r.Tenant)) {
		return tenant, grant, err
	}
	switch {
	case !known:
		return tenant, grant, reason.New(reason.TenantUnknown, "there is no tenant %.31q", r.Tenant)
	case !found || grant.UserID != "":
		return tenant, grant, reason.New(reason.GrantUnknown, "the tenant %s has no grant %.63q", tenant.Name, r.Grant)
	case tenant.Disabled:
		return tenant, grant, reason.New(reason.TenantDisabled, "the tenant %s is disabled", tenant.Name)
	}
	return tenant, grant, nil
}

// accesses are all that a rule can allow.
var accesses = []string{"backup", "restore", "maintain", "actions"}

// mayKnow says whether the service may act for the tenant at all.
func (c *Counter) mayKnow(p authn.Principal, tenant string) bool {
	for _, access := range accesses {
		if c.Rules.AllowDelegation(p, tenant, access) == nil {
			return true
		}
	}
	return false
}

// refused records a refusal and gives it back. A trail that cannot be written
// does not turn a refusal into anything else.
func (c *Counter) refused(ctx context.Context, rec storage.AuditRecord, refusal error) error {
	rec.Event, rec.Reason = string(audit.DelegationRefused), string(reason.Of(refusal))
	if _, err := c.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		c.Log.ErrorContext(ctx, "refusal not recorded", "reason", rec.Reason, "actor", rec.Actor, "error", err)
	}
	return refusal
}

func checkPurpose(purpose string) error {
	switch {
	case strings.TrimSpace(purpose) == "":
		return reason.New(reason.InvalidRequest, "reason: is missing; say what the credential is for, such as a ticket")
	case utf8.RuneCountInString(purpose) > maxPurpose:
		return reason.New(reason.InvalidRequest, "reason: has over %d characters; shorten it", maxPurpose)
	case strings.ContainsFunc(purpose, func(r rune) bool { return !unicode.IsPrint(r) }):
		return reason.New(reason.InvalidRequest, "reason: holds a character that cannot be printed; remove it")
	}
	return nil
}
