package adminapi

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/policy"
	"github.com/stokerd/stoker/server/internal/storage"
)

type grants struct {
	stokerv1.UnsafeGrantServiceServer
	*API
}

// grantKind is of the grants of one tenant.
func (a *API) grantKind(tenant storage.Tenant) kind[storage.Grant] {
	login := func(g storage.Grant) string {
		u, ok := a.Directory.User(g.UserID)
		if !ok {
			return g.UserID
		}
		return u.Login
	}
	location := func(g storage.Grant) storage.Location {
		l, ok := a.Directory.Location(g.LocationID)
		if !ok {
			l.Name = g.LocationID
		}
		return l
	}
	return kind[storage.Grant]{
		noun: "grant",
		meta: func(g *storage.Grant) *storage.Meta { return &g.Meta },
		name: func(g storage.Grant) string { return tenant.Name + "/" + g.Name },
		about: func(g storage.Grant, r *storage.AuditRecord) {
			r.TenantID, r.Tenant, r.GrantID, r.Grant = tenant.ID, tenant.Name, g.ID, g.Name
			r.UserID, r.Login, r.Account = g.UserID, login(g), location(g).Account
		},
		values: func(g storage.Grant) map[string]string {
			return map[string]string{
				"login": login(g), "location": location(g).Name, "prefix": g.Prefix, "access": g.Access,
				"actions": strings.Join(g.Actions, " "), "lifetime": g.Lifetime.String(), "disabled": strconv.FormatBool(g.Disabled),
			}
		},
		get: a.Store.GetGrant, create: a.Store.CreateGrant, update: a.Store.UpdateGrant, remove: a.Store.DeleteGrant,
	}
}

// findGrant looks a grant up in a directory that was synced.
func (a *API) findGrant(tenant storage.Tenant, field, name string) (storage.Grant, error) {
	if err := nameForm.check(field, name); err != nil {
		return storage.Grant{}, err
	}
	g, ok := a.Directory.GrantByName(tenant.ID, name)
	if !ok {
		return g, unknown("grant", tenant.Name+"/"+name)
	}
	return g, nil
}

// message translates a grant. What it refers to may be newer than the
// directory, where the grant itself was just read from storage.
func (s grants) message(ctx context.Context, tenant storage.Tenant, g storage.Grant) (*stokerv1.Grant, error) {
	var err error
	l, ok := s.Directory.Location(g.LocationID)
	if !ok {
		if l, err = s.Store.GetLocation(ctx, g.LocationID); err != nil {
			return nil, s.grantKind(tenant).explain(g, err)
		}
	}
	u, ok := s.Directory.User(g.UserID)
	if !ok && g.UserID != "" {
		if u, err = s.Store.GetUser(ctx, g.UserID); err != nil {
			return nil, s.grantKind(tenant).explain(g, err)
		}
	}
	return &stokerv1.Grant{
		Tenant: tenant.Name, Name: g.Name, Login: u.Login, Location: l.Name, Prefix: g.Prefix,
		Access: message.Access(g.Access), Actions: g.Actions, Lifetime: durationpb.New(g.Lifetime), Disabled: g.Disabled,
		Id: g.ID, Etag: s.grantKind(tenant).etag(g), CreateTime: message.Time(g.CreatedAt), UpdateTime: message.Time(g.UpdatedAt),
	}, nil
}

// read copies the chosen fields of a message into a grant. What the message
// refers to is looked up.
func (s grants) read(tenant storage.Tenant, g storage.Grant, given *stokerv1.Grant, chosen fields) (storage.Grant, error) {
	if chosen["login"] {
		g.UserID = ""
		if given.GetLogin() != "" {
			u, err := s.findUser(tenant, "grant.login", given.GetLogin())
			if err != nil {
				return g, err
			}
			g.UserID = u.ID
		}
	}
	if chosen["location"] {
		l, err := s.findLocation("grant.location", given.GetLocation())
		if err != nil {
			return g, err
		}
		g.LocationID = l.ID
	}
	if chosen["access"] {
		if g.Access = message.AccessName(given.GetAccess()); g.Access == "" {
			return g, invalid("grant.access", "is missing or unknown; use ACCESS_BACKUP, ACCESS_RESTORE, ACCESS_MAINTAIN or ACCESS_ACTIONS")
		}
	}
	if chosen["lifetime"] {
		l, _ := s.Directory.Location(g.LocationID)
		lifetime, err := s.readLifetime(given.GetLifetime(), l.Account)
		if err != nil {
			return g, err
		}
		g.Lifetime = lifetime
	}
	take(chosen, "prefix", &g.Prefix, given.GetPrefix())
	take(chosen, "actions", &g.Actions, slices.Clone(given.GetActions()))
	take(chosen, "disabled", &g.Disabled, given.GetDisabled())
	return g, nil
}

var grantFields = []string{"login", "location", "prefix", "access", "actions", "lifetime", "disabled"}

// check refuses a grant that cannot work, or that reaches another tenant's
// keys.
func (s grants) check(g storage.Grant) error {
	l, ok := s.Directory.Location(g.LocationID)
	if !ok {
		return unknown("location", g.LocationID)
	}
	if err := checkPolicy(g, l); err != nil {
		return err
	}
	if err := s.checkLifetime(g.Lifetime, l.Account); err != nil {
		return err
	}
	if err := s.overlap(l, g); err != nil {
		return err
	}
	return nil
}

// sameTerms says whether two states of a grant open the same. A grant whose
// terms do not change is not checked again: it must be possible to disable one
// that a stricter configuration would not let in any more.
func sameTerms(a, b storage.Grant) bool {
	return a.LocationID == b.LocationID && a.Prefix == b.Prefix && a.Access == b.Access &&
		slices.Equal(a.Actions, b.Actions) && a.Lifetime == b.Lifetime
}

// CreateGrant implements stokerv1.GrantServiceServer.
func (s grants) CreateGrant(ctx context.Context, r *stokerv1.CreateGrantRequest) (*stokerv1.CreateGrantResponse, error) {
	given := r.GetGrant()
	if given == nil {
		return nil, invalid("grant", "is missing")
	}
	if err := nameForm.check("grant.name", given.GetName()); err != nil {
		return nil, err
	}
	t, err := s.tenant(ctx, "grant.tenant", given.GetTenant())
	if err != nil {
		return nil, err
	}
	shown, err := s.shaped(ctx, t, func() (storage.Grant, error) { return s.add(ctx, t, given) })
	if err != nil {
		return nil, err
	}
	return &stokerv1.CreateGrantResponse{Grant: shown}, nil
}

// shaped runs a change of a tenant's grant and translates what came of it.
func (s grants) shaped(ctx context.Context, t storage.Tenant, change func() (storage.Grant, error)) (*stokerv1.Grant, error) {
	var g storage.Grant
	err := s.shape(ctx, func() (err error) {
		g, err = change()
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.message(ctx, t, g)
}

func (s grants) add(ctx context.Context, t storage.Tenant, given *stokerv1.Grant) (storage.Grant, error) {
	k := s.grantKind(t)
	all, err := readMask(nil, grantFields...)
	if err != nil {
		return storage.Grant{}, err
	}
	g, err := s.read(t, storage.Grant{TenantID: t.ID, Name: given.GetName()}, given, all)
	if err != nil {
		return g, err
	}
	if err := s.check(g); err != nil {
		return g, err
	}
	if g, err = create(ctx, s.API, k, g); err != nil {
		return g, err
	}
	return g, s.recheck(ctx, g, func(ctx context.Context) error { return remove(ctx, s.API, k, g, k.etag(g)) })
}

// recheck is keepApart for one grant.
func (s grants) recheck(ctx context.Context, g storage.Grant, undo func(context.Context) error) error {
	l, ok := s.Directory.Location(g.LocationID)
	if !ok {
		return nil // the location went meanwhile, and the grant with it
	}
	return s.keepApart(ctx, l, undo, g)
}

// find looks up a tenant and one of its grants.
func (s grants) find(ctx context.Context, tenant, name string) (storage.Tenant, storage.Grant, error) {
	t, err := s.tenant(ctx, "tenant", tenant)
	if err != nil {
		return t, storage.Grant{}, err
	}
	g, err := s.findGrant(t, "name", name)
	return t, g, err
}

// GetGrant implements stokerv1.GrantServiceServer.
func (s grants) GetGrant(ctx context.Context, r *stokerv1.GetGrantRequest) (*stokerv1.GetGrantResponse, error) {
	t, g, err := s.find(ctx, r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	shown, err := s.message(ctx, t, g)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.GetGrantResponse{Grant: shown}
	if l, ok := s.Directory.Location(g.LocationID); ok {
		document, err := policy.Build(entitlement.Scope(g, l))
		if err != nil {
			// The grant was stored under laxer rules. It is shown so that it can
			// be corrected; nothing is issued for it.
			s.Log.WarnContext(ctx, "no session policy can be made of a stored grant", "grant", g.ID, "error", err)
		}
		answer.SessionPolicy = document.String()
	}
	return answer, nil
}

// ListGrants implements stokerv1.GrantServiceServer.
func (s grants) ListGrants(ctx context.Context, r *stokerv1.GrantServiceListGrantsRequest) (*stokerv1.GrantServiceListGrantsResponse, error) {
	t, err := s.tenant(ctx, "tenant", r.GetTenant())
	if err != nil {
		return nil, err
	}
	found, next, err := readPage(ctx, s.API, list{"grants", t.ID}, page{r.GetPageSize(), r.GetPageToken()},
		within(t.ID, s.Store.ListGrants), func(g storage.Grant) string { return g.Name },
		func(g storage.Grant) (*stokerv1.Grant, error) { return s.message(ctx, t, g) })
	if err != nil {
		return nil, err
	}
	return &stokerv1.GrantServiceListGrantsResponse{Grants: found, NextPageToken: next}, nil
}

// UpdateGrant implements stokerv1.GrantServiceServer.
func (s grants) UpdateGrant(ctx context.Context, r *stokerv1.UpdateGrantRequest) (*stokerv1.UpdateGrantResponse, error) {
	given := r.GetGrant()
	if given == nil {
		return nil, invalid("grant", "is missing")
	}
	chosen, err := readMask(r.GetUpdateMask(), grantFields...)
	if err != nil {
		return nil, err
	}
	if err := nameForm.check("grant.name", given.GetName()); err != nil {
		return nil, err
	}
	t, err := s.tenant(ctx, "grant.tenant", given.GetTenant())
	if err != nil {
		return nil, err
	}
	shown, err := s.shaped(ctx, t, func() (storage.Grant, error) { return s.change(ctx, t, given, chosen) })
	if err != nil {
		return nil, err
	}
	return &stokerv1.UpdateGrantResponse{Grant: shown}, nil
}

func (s grants) change(ctx context.Context, t storage.Tenant, given *stokerv1.Grant, chosen fields) (storage.Grant, error) {
	known, err := s.findGrant(t, "grant.name", given.GetName())
	if err != nil {
		return known, err
	}
	k := s.grantKind(t)
	var before storage.Grant
	g, err := update(ctx, s.API, k, known, given.GetEtag(), func(g storage.Grant) (storage.Grant, error) {
		before = g
		g, err := s.read(t, g, given, chosen)
		if err != nil || sameTerms(before, g) {
			return g, err
		}
		return g, s.check(g)
	})
	if err != nil || sameTerms(before, g) {
		return g, err
	}
	return g, s.recheck(ctx, g, func(ctx context.Context) error {
		_, err := update(ctx, s.API, k, g, k.etag(g), func(now storage.Grant) (storage.Grant, error) {
			before.Meta = now.Meta
			return before, nil
		})
		return err
	})
}

// DeleteGrant implements stokerv1.GrantServiceServer.
func (s grants) DeleteGrant(ctx context.Context, r *stokerv1.DeleteGrantRequest) (*stokerv1.DeleteGrantResponse, error) {
	t, g, err := s.find(ctx, r.GetTenant(), r.GetName())
	if err != nil {
		return nil, err
	}
	if err := remove(ctx, s.API, s.grantKind(t), g, r.GetEtag()); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteGrantResponse{}, nil
}
