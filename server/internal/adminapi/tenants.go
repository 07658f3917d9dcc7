package adminapi

import (
	"context"
	"strconv"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/storage"
)

type tenants struct {
	stokerv1.UnsafeTenantServiceServer
	*API
}

func (a *API) tenantKind() kind[storage.Tenant] {
	return kind[storage.Tenant]{
		noun: "tenant",
		meta: func(t *storage.Tenant) *storage.Meta { return &t.Meta },
		name: func(t storage.Tenant) string { return t.Name },
		about: func(t storage.Tenant, r *storage.AuditRecord) {
			r.TenantID, r.Tenant = t.ID, t.Name
		},
		values: func(t storage.Tenant) map[string]string {
			return map[string]string{"display_name": t.DisplayName, "disabled": strconv.FormatBool(t.Disabled)}
		},
		get: a.Store.GetTenant, create: a.Store.CreateTenant, update: a.Store.UpdateTenant, remove: a.Store.DeleteTenant,
	}
}

// tenant finds a tenant by name. It syncs the directory first, for all that is
// looked up after it.
func (a *API) tenant(ctx context.Context, field, name string) (storage.Tenant, error) {
	if err := tenantForm.check(field, name); err != nil {
		return storage.Tenant{}, err
	}
	if err := a.sync(ctx); err != nil {
		return storage.Tenant{}, err
	}
	t, ok := a.Directory.TenantByName(name)
	if !ok {
		return t, unknown("tenant", name)
	}
	return t, nil
}

func (s tenants) message(t storage.Tenant) *stokerv1.Tenant {
	return &stokerv1.Tenant{
		Name: t.Name, DisplayName: t.DisplayName, Disabled: t.Disabled,
		Id: t.ID, Etag: s.tenantKind().etag(t), CreateTime: message.Time(t.CreatedAt), UpdateTime: message.Time(t.UpdatedAt),
	}
}

// CreateTenant implements stokerv1.TenantServiceServer.
func (s tenants) CreateTenant(ctx context.Context, r *stokerv1.CreateTenantRequest) (*stokerv1.CreateTenantResponse, error) {
	given := r.GetTenant()
	if given == nil {
		return nil, invalid("tenant", "is missing")
	}
	if err := tenantForm.check("tenant.name", given.GetName()); err != nil {
		return nil, err
	}
	if err := checkText("tenant.display_name", given.GetDisplayName(), maxDisplayName); err != nil {
		return nil, err
	}
	t, err := create(ctx, s.API, s.tenantKind(), storage.Tenant{
		Name: given.GetName(), DisplayName: given.GetDisplayName(), Disabled: given.GetDisabled(),
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.CreateTenantResponse{Tenant: s.message(t)}, nil
}

// GetTenant implements stokerv1.TenantServiceServer.
func (s tenants) GetTenant(ctx context.Context, r *stokerv1.GetTenantRequest) (*stokerv1.GetTenantResponse, error) {
	t, err := s.tenant(ctx, "name", r.GetName())
	if err != nil {
		return nil, err
	}
	return &stokerv1.GetTenantResponse{Tenant: s.message(t)}, nil
}

// ListTenants implements stokerv1.TenantServiceServer.
func (s tenants) ListTenants(ctx context.Context, r *stokerv1.ListTenantsRequest) (*stokerv1.ListTenantsResponse, error) {
	found, next, err := readPage(ctx, s.API, list{"tenants"}, page{r.GetPageSize(), r.GetPageToken()},
		s.Store.ListTenants, s.tenantKind().name, sure(s.message))
	if err != nil {
		return nil, err
	}
	return &stokerv1.ListTenantsResponse{Tenants: found, NextPageToken: next}, nil
}

// UpdateTenant implements stokerv1.TenantServiceServer.
func (s tenants) UpdateTenant(ctx context.Context, r *stokerv1.UpdateTenantRequest) (*stokerv1.UpdateTenantResponse, error) {
	given := r.GetTenant()
	if given == nil {
		return nil, invalid("tenant", "is missing")
	}
	chosen, err := readMask(r.GetUpdateMask(), "display_name", "disabled")
	if err != nil {
		return nil, err
	}
	if chosen["display_name"] {
		if err := checkText("tenant.display_name", given.GetDisplayName(), maxDisplayName); err != nil {
			return nil, err
		}
	}
	known, err := s.tenant(ctx, "tenant.name", given.GetName())
	if err != nil {
		return nil, err
	}
	t, err := update(ctx, s.API, s.tenantKind(), known, given.GetEtag(), func(t storage.Tenant) (storage.Tenant, error) {
		take(chosen, "display_name", &t.DisplayName, given.GetDisplayName())
		take(chosen, "disabled", &t.Disabled, given.GetDisabled())
		return t, nil
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.UpdateTenantResponse{Tenant: s.message(t)}, nil
}

// DeleteTenant implements stokerv1.TenantServiceServer.
func (s tenants) DeleteTenant(ctx context.Context, r *stokerv1.DeleteTenantRequest) (*stokerv1.DeleteTenantResponse, error) {
	known, err := s.tenant(ctx, "name", r.GetName())
	if err != nil {
		return nil, err
	}
	if err := remove(ctx, s.API, s.tenantKind(), known, r.GetEtag()); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteTenantResponse{}, nil
}
