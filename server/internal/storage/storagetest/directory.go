package storagetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var directoryCases = map[string]func(*testing.T, Opener){
	"Tenants":   one(func(t *testing.T, s storage.Store) { tenantRules(s).check(t, s) }),
	"Users":     one(func(t *testing.T, s storage.Store) { userRules(t, s).check(t, s) }),
	"Agents":    one(func(t *testing.T, s storage.Store) { agentRules(t, s).check(t, s) }),
	"Locations": one(func(t *testing.T, s storage.Store) { locationRules(s).check(t, s) }),
	"Grants":    one(func(t *testing.T, s storage.Store) { grantRules(t, s).check(t, s) }),

	"NamesAreUniqueInTheTenantOnly":     one(testNamesAreUniqueInTheTenantOnly),
	"ListsHoldOneTenant":                one(testListsHoldOneTenant),
	"UnknownParents":                    one(testUnknownParents),
	"TheTenantCannotChange":             one(testTheTenantCannotChange),
	"DeleteTenantTakesWhatItHas":        one(testDeleteTenantTakesWhatItHas),
	"DeleteUserTakesItsOwnGrants":       one(testDeleteUserTakesItsOwnGrants),
	"DeleteLocationInUse":               one(testDeleteLocationInUse),
	"GrantActionsAndUserCanChange":      one(testGrantActionsAndUserCanChange),
	"HostileTexts":                      one(testHostileTexts),
	"TextsThatCannotBeStored":           one(testTextsThatCannotBeStored),
	"TextsThatCannotBeStoredAreNowhere": one(testTextsThatCannotBeStoredAreNowhere),
}

// rules are those of Tenants, for one kind of entity.
type rules[E any] struct {
	kind   storage.Kind
	make   func(t *testing.T, name string) E
	meta   func(*E) *storage.Meta
	name   func(*E) *string
	change func(*E) // sets every field that may change

	create func(context.Context, E) (E, error)
	get    func(context.Context, string) (E, error)
	list   func(context.Context, storage.Page) ([]E, error)
	update func(context.Context, E) (E, error)
	delete func(context.Context, string, int64) error
}

func (r rules[E]) check(t *testing.T, s storage.Store) {
	t.Run("Create", func(t *testing.T) { r.checkCreate(t, s) })
	t.Run("Update", func(t *testing.T) { r.checkUpdate(t, s) })
	t.Run("Delete", func(t *testing.T) { r.checkDelete(t, s) })
	t.Run("List", func(t *testing.T) { r.checkList(t) })
}

func (r rules[E]) checkCreate(t *testing.T, s storage.Store) {
	ctx := t.Context()
	given := r.make(t, "created")
	r.change(&given)
	id := r.meta(&given).ID
	before := time.Now().Truncate(time.Microsecond)
	var created E
	told(t, s, func() { created = must[E](t)(r.create(ctx, given)) }, storage.Change{Kind: r.kind, ID: id})

	m := *r.meta(&created)
	if m.Revision != 1 || !m.CreatedAt.Equal(m.UpdatedAt) || m.CreatedAt.Before(before) || m.CreatedAt.After(time.Now()) {
		t.Errorf("meta is %+v", m)
	}
	*r.meta(&given) = m
	same(t, "created", created, given)
	same(t, "read", must[E](t)(r.get(ctx, id)), created)

	told(t, s, func() {
		_, err := r.create(ctx, r.make(t, "created"))
		wantError(t, err, storage.ErrExists)
		again := r.make(t, "other")
		r.meta(&again).ID = id
		_, err = r.create(ctx, again)
		wantError(t, err, storage.ErrExists)
		without := r.make(t, "without-id")
		r.meta(&without).ID = ""
		_, err = r.create(ctx, without)
		wantError(t, err, storage.ErrInvalid)
		_, err = r.create(ctx, r.make(t, ""))
		wantError(t, err, storage.ErrInvalid)
		_, err = r.get(ctx, newID(t))
		wantError(t, err, storage.ErrNotFound)
	})
	errs := race(4, func(int) error {
		_, err := r.create(ctx, r.make(t, "raced"))
		return err
	})
	oneWinner(t, errs, storage.ErrExists)
}

func (r rules[E]) checkUpdate(t *testing.T, s storage.Store) {
	ctx := t.Context()
	first := must[E](t)(r.create(ctx, r.make(t, "updated")))
	id := r.meta(&first).ID

	given := first
	r.change(&given)
	var updated E
	told(t, s, func() { updated = must[E](t)(r.update(ctx, given)) }, storage.Change{Kind: r.kind, ID: id})
	m := *r.meta(&updated)
	if m.Revision != 2 || !m.CreatedAt.Equal(r.meta(&first).CreatedAt) || m.UpdatedAt.Before(m.CreatedAt) {
		t.Errorf("meta is %+v after %+v", m, *r.meta(&first))
	}
	*r.meta(&given) = m
	same(t, "updated", updated, given)
	same(t, "read", must[E](t)(r.get(ctx, id)), updated)

	told(t, s, func() {
		_, err := r.update(ctx, first)
		wantError(t, err, storage.ErrConflict)
		anyRevision := updated
		r.meta(&anyRevision).Revision = 0
		_, err = r.update(ctx, anyRevision)
		wantError(t, err, storage.ErrConflict)
		renamed := updated
		*r.name(&renamed) = "renamed"
		_, err = r.update(ctx, renamed)
		wantError(t, err, storage.ErrInvalid)
		unknown := updated
		r.meta(&unknown).ID = newID(t)
		_, err = r.update(ctx, unknown)
		wantError(t, err, storage.ErrNotFound)
	})
	same(t, "read after failures", must[E](t)(r.get(ctx, id)), updated)

	errs := race(4, func(int) error {
		_, err := r.update(ctx, updated)
		return err
	})
	oneWinner(t, errs, storage.ErrConflict)
	after := must[E](t)(r.get(ctx, id))
	if got := r.meta(&after).Revision; got != 3 {
		t.Errorf("revision %d after the race", got)
	}
}

func (r rules[E]) checkDelete(t *testing.T, s storage.Store) {
	ctx := t.Context()
	first := must[E](t)(r.create(ctx, r.make(t, "deleted")))
	id := r.meta(&first).ID
	second := must[E](t)(r.update(ctx, first))
	told(t, s, func() {
		wantError(t, r.delete(ctx, id, 1), storage.ErrConflict)
		wantError(t, r.delete(ctx, newID(t), 1), storage.ErrNotFound)
		wantError(t, r.delete(ctx, newID(t), 0), storage.ErrNotFound)
	})
	told(t, s, func() { noError(t, r.delete(ctx, id, 2)) }, storage.Change{Kind: r.kind, ID: id})
	_, err := r.get(ctx, id)
	wantError(t, err, storage.ErrNotFound)
	wantError(t, r.delete(ctx, id, 2), storage.ErrNotFound)
	_, err = r.update(ctx, second)
	wantError(t, err, storage.ErrNotFound)

	// The name is free again.
	third := must[E](t)(r.create(ctx, r.make(t, "deleted")))
	thirdID := r.meta(&third).ID
	must[E](t)(r.update(ctx, third))
	told(t, s, func() { noError(t, r.delete(ctx, thirdID, 0)) }, storage.Change{Kind: r.kind, ID: thirdID})
}

func (r rules[E]) checkList(t *testing.T) {
	ctx := t.Context()
	for _, name := range []string{"ab", "a-b", "a_b", "B", "b", "é", "a", "10", "9"} {
		must[E](t)(r.create(ctx, r.make(t, "list-"+name)))
	}
	all := must[[]E](t)(r.list(ctx, storage.Page{Limit: 1000}))
	var names []string
	for _, e := range all {
		names = append(names, *r.name(&e))
		same(t, "listed", e, must[E](t)(r.get(ctx, r.meta(&e).ID)))
	}
	if len(names) < 9 || !slices.IsSorted(names) {
		t.Errorf("the list is not in the order of the names' bytes: %q", names)
	}
	for _, limit := range []int{1, 2, len(names) - 1, len(names), len(names) + 1} {
		var paged []string
		for after := ""; ; {
			page := must[[]E](t)(r.list(ctx, storage.Page{After: after, Limit: limit}))
			if len(page) > limit {
				t.Fatalf("%d entries in a page of %d", len(page), limit)
			}
			for _, e := range page {
				after = *r.name(&e)
				paged = append(paged, after)
			}
			if len(page) < limit {
				break
			}
		}
		same(t, "pages", paged, names)
	}
	for _, limit := range []int{0, -1} {
		_, err := r.list(ctx, storage.Page{Limit: limit})
		wantError(t, err, storage.ErrInvalid)
	}
}

func tenantRules(s storage.Store) rules[storage.Tenant] {
	return rules[storage.Tenant]{
		kind: storage.KindTenant,
		make: func(t *testing.T, name string) storage.Tenant { return storage.Tenant{Meta: newMeta(t), Name: name} },
		meta: func(v *storage.Tenant) *storage.Meta { return &v.Meta },
		name: func(v *storage.Tenant) *string { return &v.Name },
		change: func(v *storage.Tenant) {
			v.DisplayName, v.Disabled = "Bäckerei \"Müller\"", true
		},
		create: s.CreateTenant, get: s.GetTenant, list: s.ListTenants, update: s.UpdateTenant, delete: s.DeleteTenant,
	}
}

func userRules(t *testing.T, s storage.Store) rules[storage.User] {
	tenant := addTenant(t, s, "users")
	return rules[storage.User]{
		kind: storage.KindUser,
		make: func(t *testing.T, name string) storage.User {
			return storage.User{Meta: newMeta(t), TenantID: tenant.ID, Login: name}
		},
		meta: func(v *storage.User) *storage.Meta { return &v.Meta },
		name: func(v *storage.User) *string { return &v.Login },
		change: func(v *storage.User) {
			v.PasswordHash, v.PasswordVersion, v.Disabled = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", 7, true
		},
		create: s.CreateUser, get: s.GetUser, update: s.UpdateUser, delete: s.DeleteUser,
		list: func(ctx context.Context, p storage.Page) ([]storage.User, error) {
			return s.ListUsers(ctx, tenant.ID, p)
		},
	}
}

func agentRules(t *testing.T, s storage.Store) rules[storage.Agent] {
	tenant := addTenant(t, s, "agents")
	return rules[storage.Agent]{
		kind: storage.KindAgent,
		make: func(t *testing.T, name string) storage.Agent {
			return storage.Agent{Meta: newMeta(t), TenantID: tenant.ID, Name: name}
		},
		meta:   func(v *storage.Agent) *storage.Meta { return &v.Meta },
		name:   func(v *storage.Agent) *string { return &v.Name },
		change: func(v *storage.Agent) { v.Disabled = true },
		create: s.CreateAgent, get: s.GetAgent, update: s.UpdateAgent, delete: s.DeleteAgent,
		list: func(ctx context.Context, p storage.Page) ([]storage.Agent, error) {
			return s.ListAgents(ctx, tenant.ID, p)
		},
	}
}

func locationRules(s storage.Store) rules[storage.Location] {
	return rules[storage.Location]{
		kind: storage.KindLocation,
		make: func(t *testing.T, name string) storage.Location {
			return storage.Location{Meta: newMeta(t), Name: name}
		},
		meta: func(v *storage.Location) *storage.Meta { return &v.Meta },
		name: func(v *storage.Location) *string { return &v.Name },
		change: func(v *storage.Location) {
			v.Account, v.Bucket, v.Region = "main", "bucket", "eu-central-1"
			v.Endpoint, v.KMSKeyARN = "https://s3.example.com", "arn:aws:kms:eu-central-1:111122223333:key/k"
		},
		create: s.CreateLocation, get: s.GetLocation, list: s.ListLocations, update: s.UpdateLocation, delete: s.DeleteLocation,
	}
}

func grantRules(t *testing.T, s storage.Store) rules[storage.Grant] {
	tenant := addTenant(t, s, "grants")
	user := addUser(t, s, tenant.ID, "user")
	location, other := addLocation(t, s, "first"), addLocation(t, s, "second")
	return rules[storage.Grant]{
		kind: storage.KindGrant,
		make: func(t *testing.T, name string) storage.Grant {
			return storage.Grant{Meta: newMeta(t), TenantID: tenant.ID, LocationID: location.ID, Name: name}
		},
		meta: func(v *storage.Grant) *storage.Meta { return &v.Meta },
		name: func(v *storage.Grant) *string { return &v.Name },
		change: func(v *storage.Grant) {
			v.UserID, v.LocationID, v.Prefix, v.Access = user.ID, other.ID, "a/b/", "actions"
			v.Actions, v.Lifetime, v.Disabled = []string{"s3:GetObject", "s3:PutObject"}, 90*time.Minute, true
		},
		create: s.CreateGrant, get: s.GetGrant, update: s.UpdateGrant, delete: s.DeleteGrant,
		list: func(ctx context.Context, p storage.Page) ([]storage.Grant, error) {
			return s.ListGrants(ctx, tenant.ID, p)
		},
	}
}
