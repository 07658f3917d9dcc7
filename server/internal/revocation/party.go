package revocation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// trailPage is how many records are read from the audit trail at once.
const trailPage = 1_000

// party is a target that was found.
type party struct {
	Target
	tenantID string
	// sessionName narrows a single credential's revocation.
	sessionName string
	// about writes the party's ids and names into a record.
	about func(*storage.AuditRecord)
	// refuse makes the broker refuse the party: it is in storage when refuse
	// returns. Nil: the revocation itself does.
	refuse func(ctx context.Context, why string, by Operator) error
	// accounts are those that may have issued to the party, with the moment
	// when the last credential issued so far has expired.
	accounts func(ctx context.Context, now time.Time) (map[string]time.Time, error)
}

// find looks the target up. Its answers are as new as every change that was
// committed before.
func (d *Desk) find(ctx context.Context, target Target) (party, error) {
	if err := d.sync(ctx); err != nil {
		return party{}, err
	}
	switch target.Kind {
	case kindTenant:
		return d.tenant(target)
	case kindUser:
		return d.user(target)
	case kindAgent:
		return d.agent(target)
	case kindGrant:
		return d.grant(target)
	case kindCredential:
		return d.credential(ctx, target)
	case kindCertificate:
		return d.certificate(target), nil
	default:
		return party{}, reason.New(reason.InvalidRequest, "%.40q is nothing that can be revoked", target.Kind)
	}
}

func (t Target) unknown() error {
	return reason.New(reason.NotFound, "there is no %s %q", t.Kind, t.Name)
}

func (d *Desk) tenant(target Target) (party, error) {
	t, ok := d.Directory.Tenant(target.ID)
	if !ok {
		return party{}, target.unknown()
	}
	p := party{Target: target, tenantID: t.ID, about: func(r *storage.AuditRecord) { r.TenantID, r.Tenant = t.ID, t.Name }}
	p.refuse = disabling(d, p, d.Store.GetTenant, d.Store.UpdateTenant, func(t *storage.Tenant) *bool { return &t.Disabled })
	p.accounts = d.issuers(t, d.Directory.GrantsOf(t.ID), func(storage.AuditRecord) bool { return true })
	return p, nil
}

func (d *Desk) user(target Target) (party, error) {
	u, ok := d.Directory.User(target.ID)
	t, known := d.Directory.Tenant(u.TenantID)
	if !ok || !known {
		return party{}, target.unknown()
	}
	p := party{Target: target, tenantID: t.ID, about: func(r *storage.AuditRecord) {
		r.TenantID, r.Tenant, r.UserID, r.Login = t.ID, t.Name, u.ID, u.Login
	}}
	p.refuse = disabling(d, p, d.Store.GetUser, d.Store.UpdateUser, func(u *storage.User) *bool { return &u.Disabled })
	p.accounts = d.issuers(t, d.Directory.GrantsFor(t.ID, u.ID), func(r storage.AuditRecord) bool { return r.UserID == u.ID })
	return p, nil
}

func (d *Desk) agent(target Target) (party, error) {
	a, ok := d.Directory.Agent(target.ID)
	t, known := d.Directory.Tenant(a.TenantID)
	if !ok || !known {
		return party{}, target.unknown()
	}
	p := party{Target: target, tenantID: t.ID, about: func(r *storage.AuditRecord) {
		r.TenantID, r.Tenant, r.AgentID, r.Agent = t.ID, t.Name, a.ID, a.Name
	}}
	p.refuse = disabling(d, p, d.Store.GetAgent, d.Store.UpdateAgent, func(a *storage.Agent) *bool { return &a.Disabled })
	// Any user of the tenant may have logged in from it.
	p.accounts = d.issuers(t, d.Directory.GrantsOf(t.ID), func(r storage.AuditRecord) bool { return r.AgentID == a.ID })
	return p, nil
}

func (d *Desk) grant(target Target) (party, error) {
	g, ok := d.Directory.Grant(target.ID)
	t, known := d.Directory.Tenant(g.TenantID)
	if !ok || !known {
		return party{}, target.unknown()
	}
	p := party{Target: target, tenantID: t.ID, about: func(r *storage.AuditRecord) {
		r.TenantID, r.Tenant, r.GrantID, r.Grant = t.ID, t.Name, g.ID, g.Name
	}}
	p.refuse = disabling(d, p, d.Store.GetGrant, d.Store.UpdateGrant, func(g *storage.Grant) *bool { return &g.Disabled })
	p.accounts = d.issuers(t, []storage.Grant{g}, func(r storage.AuditRecord) bool { return r.GrantID == g.ID })
	return p, nil
}

func (d *Desk) credential(ctx context.Context, target Target) (party, error) {
	issue, err := d.Store.FindIssue(ctx, target.ID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return party{}, target.unknown()
	case err != nil:
		return party{}, err
	case !issue.Expires.After(d.Now()):
		return party{}, reason.New(reason.InvalidRequest, "credential %q ended by itself on %s", target.ID, issue.Expires.UTC().Format(time.RFC3339)).
			With("field", "credential")
	}
	return party{
		Target: target, tenantID: issue.TenantID, sessionName: issue.SessionName,
		about: func(r *storage.AuditRecord) {
			r.TenantID, r.Tenant, r.UserID, r.Login = issue.TenantID, issue.Tenant, issue.UserID, issue.Login
			r.AgentID, r.Agent, r.GrantID, r.Grant = issue.AgentID, issue.Agent, issue.GrantID, issue.Grant
			r.CredentialID, r.AccessKeyID, r.Expires = issue.CredentialID, issue.AccessKeyID, issue.Expires
		},
		accounts: func(context.Context, time.Time) (map[string]time.Time, error) {
			return map[string]time.Time{issue.Account: issue.Expires}, nil
		},
	}, nil
}

// certificate is any serial number, also one that the broker has not seen: it
// may be of a foreign authority.
func (d *Desk) certificate(target Target) party {
	p := party{Target: target, about: func(*storage.AuditRecord) {}}
	// Whatever was issued to it lives on, so no account has to do anything. A
	// certificate stays revoked for good.
	p.accounts = func(context.Context, time.Time) (map[string]time.Time, error) {
		return map[string]time.Time{"": {}}, nil
	}
	p.refuse = func(ctx context.Context, why string, by Operator) error {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make an id: %w", err)
		}
		record := by.record(audit.CertificateRevoked)
		record.Reason = string(reason.CertificateRevoked)
		record.Detail["kind"], record.Detail["name"], record.Detail["reason"] = kindCertificate, target.ID, why
		return d.carryOut(ctx, record, func(ctx context.Context) error {
			_, err := d.Store.RevokeCertificate(ctx, storage.Certificate{
				Meta: storage.Meta{ID: id.String()}, Serial: target.ID, RevokedAt: d.Now(), RevocationReason: why,
			})
			return err
		})
	}
	return p
}

// disabling makes the refusal of a party that is an entity. One that is
// disabled already is left as it is.
func disabling[T any](d *Desk, p party, get func(context.Context, string) (T, error), update func(context.Context, T) (T, error),
	disabled func(*T) *bool,
) func(context.Context, string, Operator) error {
	return func(ctx context.Context, why string, by Operator) error {
		for attempt := 1; ; attempt++ {
			v, err := get(ctx, p.ID)
			switch {
			case errors.Is(err, storage.ErrNotFound):
				return p.unknown()
			case err != nil:
				return err
			case *disabled(&v):
				return nil
			}
			*disabled(&v) = true
			record := by.record(audit.AdminUpdated)
			p.about(&record)
			record.Detail["kind"], record.Detail["name"], record.Detail["reason"] = p.Kind, p.Name, why
			record.Detail["old.disabled"], record.Detail["new.disabled"] = "false", "true"
			err = d.carryOut(ctx, record, func(ctx context.Context) error {
				_, err := update(ctx, v)
				return err
			})
			switch {
			case errors.Is(err, storage.ErrConflict) && attempt < attempts:
				continue
			case errors.Is(err, storage.ErrConflict):
				return reason.New(reason.EtagMismatch, "the %s %q keeps being changed by others; try again", p.Kind, p.Name).Because(err)
			case errors.Is(err, storage.ErrNotFound):
				return p.unknown()
			}
			return err
		}
	}
}

// issuers are the accounts that may have issued to a party of the tenant: those
// where its grants are today, and those from which the audit trail has a
// credential for it that has not expired, because grants move and are deleted.
// The trail is not read where the grants already name every account.
//
// A credential may be older than the grant's lifetime or the account's limit
// of today, so the longest of either counts.
func (d *Desk) issuers(t storage.Tenant, grants []storage.Grant, concerns func(storage.AuditRecord) bool) func(context.Context, time.Time) (map[string]time.Time, error) {
	return func(ctx context.Context, now time.Time) (map[string]time.Time, error) {
		accounts := map[string]time.Time{}
		add := func(account string, until time.Time) {
			if accounts[account].Before(until) {
				accounts[account] = until
			}
		}
		for _, g := range grants {
			if l, ok := d.Directory.Location(g.LocationID); ok {
				add(l.Account, now.Add(max(g.Lifetime, d.Accounts[l.Account].MaxLifetime)))
			}
		}
		var longest time.Duration
		complete := true
		for name, a := range d.Accounts {
			longest = max(longest, a.MaxLifetime)
			_, known := accounts[name]
			complete = complete && known
		}
		if complete {
			return accounts, nil
		}
		err := d.issued(ctx, t, now.Add(-longest), func(r storage.AuditRecord) {
			if r.TenantID == t.ID && concerns(r) && r.Expires.After(now) {
				add(r.Account, now.Add(max(r.Expires.Sub(now), d.Accounts[r.Account].MaxLifetime)))
			}
		})
		return accounts, err
	}
}

// issued gives each record of an issue for the tenant since the moment.
func (d *Desk) issued(ctx context.Context, t storage.Tenant, since time.Time, each func(storage.AuditRecord)) error {
	filter := storage.AuditFilter{
		After: since, Tenant: t.Name, Events: []string{string(audit.CredentialIssued), string(audit.CredentialRenewed)},
	}
	var after *storage.AuditCursor
	for {
		page, err := d.Store.ListAudit(ctx, filter, after, trailPage)
		if err != nil {
			return err
		}
		for _, r := range page {
			each(r)
		}
		if len(page) < trailPage {
			return nil
		}
		last := page[len(page)-1]
		after = &storage.AuditCursor{Time: last.Time, Writer: last.Writer, Sequence: last.Sequence}
	}
}
