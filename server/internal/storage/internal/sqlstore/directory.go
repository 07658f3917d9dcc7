package sqlstore

import (
	"context"
	"fmt"

	"github.com/stokerd/stoker/server/internal/storage"
)

// CreateTenant implements storage.Tenants.
func (s *Store) CreateTenant(ctx context.Context, v storage.Tenant) (storage.Tenant, error) {
	return createEntity(ctx, s, tenants, v, nil)
}

// GetTenant implements storage.Tenants.
func (s *Store) GetTenant(ctx context.Context, id string) (storage.Tenant, error) {
	return getEntity(ctx, s, tenants, id)
}

// ListTenants implements storage.Tenants.
func (s *Store) ListTenants(ctx context.Context, p storage.Page) ([]storage.Tenant, error) {
	return listEntities(ctx, s, tenants, "name", p, allRows)
}

// UpdateTenant implements storage.Tenants.
func (s *Store) UpdateTenant(ctx context.Context, v storage.Tenant) (storage.Tenant, error) {
	return updateEntity(ctx, s, tenants, v, nil)
}

// DeleteTenant implements storage.Tenants. Join tokens go with their tenant by
// the foreign key.
func (s *Store) DeleteTenant(ctx context.Context, id string, revision int64) error {
	return deleteEntity(ctx, s, tenants, id, revision, func(t *tx) error {
		if err := revokeOrphans(t, "agent_id IN (SELECT id FROM agents WHERE tenant_id = $2)", id, "the tenant was deleted"); err != nil {
			return err
		}
		if err := bury(t, "SELECT name FROM tenants WHERE id = $1", id); err != nil {
			return err
		}
		if err := grants.removeWhere(t, "tenant_id = $1", id); err != nil {
			return err
		}
		if err := users.removeWhere(t, "tenant_id = $1", id); err != nil {
			return err
		}
		return agents.removeWhere(t, "tenant_id = $1", id)
	})
}

// CreateUser implements storage.Users.
func (s *Store) CreateUser(ctx context.Context, v storage.User) (storage.User, error) {
	return createEntity(ctx, s, users, v, func(t *tx) error { return requireTenant(t, v.TenantID) })
}

// GetUser implements storage.Users.
func (s *Store) GetUser(ctx context.Context, id string) (storage.User, error) {
	return getEntity(ctx, s, users, id)
}

// ListUsers implements storage.Users.
func (s *Store) ListUsers(ctx context.Context, tenantID string, p storage.Page) ([]storage.User, error) {
	return listEntities(ctx, s, users, "login", p, ofTenant, tenantID)
}

// UpdateUser implements storage.Users.
func (s *Store) UpdateUser(ctx context.Context, v storage.User) (storage.User, error) {
	return updateEntity(ctx, s, users, v, nil)
}

// DeleteUser implements storage.Users.
func (s *Store) DeleteUser(ctx context.Context, id string, revision int64) error {
	return deleteEntity(ctx, s, users, id, revision, func(t *tx) error {
		return grants.removeWhere(t, "user_id = $1", id)
	})
}

// CreateAgent implements storage.Agents.
func (s *Store) CreateAgent(ctx context.Context, v storage.Agent) (storage.Agent, error) {
	created := v
	err := s.write(ctx, "create agent", moving, func(t *tx) (err error) {
		created = v
		if err := requireTenant(t, v.TenantID); err != nil {
			return err
		}
		if created.CertificatesAfter, err = buried(t, v.TenantID, v.Name); err != nil {
			return err
		}
		return agents.create(t, &created)
	})
	return orZero(created, err)
}

// GetAgent implements storage.Agents.
func (s *Store) GetAgent(ctx context.Context, id string) (storage.Agent, error) {
	return getEntity(ctx, s, agents, id)
}

// ListAgents implements storage.Agents.
func (s *Store) ListAgents(ctx context.Context, tenantID string, p storage.Page) ([]storage.Agent, error) {
	return listEntities(ctx, s, agents, "name", p, ofTenant, tenantID)
}

// UpdateAgent implements storage.Agents.
func (s *Store) UpdateAgent(ctx context.Context, v storage.Agent) (storage.Agent, error) {
	return updateEntity(ctx, s, agents, v, nil)
}

// DeleteAgent implements storage.Agents.
func (s *Store) DeleteAgent(ctx context.Context, id string, revision int64) error {
	return deleteEntity(ctx, s, agents, id, revision, func(t *tx) error {
		if err := revokeOrphans(t, "agent_id = $2", id, "the agent was deleted"); err != nil {
			return err
		}
		if err := bury(t, "SELECT t.name || '/' || a.name FROM agents a JOIN tenants t ON t.id = a.tenant_id WHERE a.id = $1", id); err != nil {
			return err
		}
		// Used ones stay: they tell when they were used.
		_, err := t.exec("DELETE FROM join_tokens WHERE used_at IS NULL AND (tenant_id, agent_name) IN "+
			"(SELECT tenant_id, name FROM agents WHERE id = $1)", id)
		return err
	})
}

// CreateLocation implements storage.Locations.
func (s *Store) CreateLocation(ctx context.Context, v storage.Location) (storage.Location, error) {
	return createEntity(ctx, s, locations, v, nil)
}

// GetLocation implements storage.Locations.
func (s *Store) GetLocation(ctx context.Context, id string) (storage.Location, error) {
	return getEntity(ctx, s, locations, id)
}

// ListLocations implements storage.Locations.
func (s *Store) ListLocations(ctx context.Context, p storage.Page) ([]storage.Location, error) {
	return listEntities(ctx, s, locations, "name", p, allRows)
}

// UpdateLocation implements storage.Locations.
func (s *Store) UpdateLocation(ctx context.Context, v storage.Location) (storage.Location, error) {
	return updateEntity(ctx, s, locations, v, nil)
}

// DeleteLocation implements storage.Locations.
func (s *Store) DeleteLocation(ctx context.Context, id string, revision int64) error {
	return deleteEntity(ctx, s, locations, id, revision, func(t *tx) error {
		used, err := exists(t, "SELECT 1 FROM grants WHERE location_id = $1 LIMIT 1", id)
		if err == nil && used {
			err = fmt.Errorf("%w: grants refer to it", storage.ErrInUse)
		}
		return err
	})
}

// CreateGrant implements storage.Grants.
func (s *Store) CreateGrant(ctx context.Context, v storage.Grant) (storage.Grant, error) {
	return createEntity(ctx, s, grants, v, func(t *tx) error { return requireGranted(t, v) })
}

// GetGrant implements storage.Grants.
func (s *Store) GetGrant(ctx context.Context, id string) (storage.Grant, error) {
	return getEntity(ctx, s, grants, id)
}

// ListGrants implements storage.Grants.
func (s *Store) ListGrants(ctx context.Context, tenantID string, p storage.Page) ([]storage.Grant, error) {
	return listEntities(ctx, s, grants, "name", p, ofTenant, tenantID)
}

// UpdateGrant implements storage.Grants.
func (s *Store) UpdateGrant(ctx context.Context, v storage.Grant) (storage.Grant, error) {
	return updateEntity(ctx, s, grants, v, func(t *tx) error { return requireGranted(t, v) })
}

// DeleteGrant implements storage.Grants.
func (s *Store) DeleteGrant(ctx context.Context, id string, revision int64) error {
	return deleteEntity(ctx, s, grants, id, revision, nil)
}

func requireTenant(t *tx, id string) error {
	return require(t, "tenant", "SELECT 1 FROM tenants WHERE id = $1", id)
}

// requireGranted checks what a grant refers to. The foreign keys would refuse
// it too, but cannot say which of the three is missing.
func requireGranted(t *tx, v storage.Grant) error {
	if err := requireTenant(t, v.TenantID); err != nil {
		return err
	}
	if v.UserID != "" {
		err := require(t, "user in this tenant", "SELECT 1 FROM users WHERE id = $1 AND tenant_id = $2", v.UserID, v.TenantID)
		if err != nil {
			return err
		}
	}
	return require(t, "location", "SELECT 1 FROM locations WHERE id = $1", v.LocationID)
}
