package main

import (
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type tenantCommands struct {
	Create tenantCreate `cmd:"" help:"Add a tenant."`
	Get    tenantGet    `cmd:"" help:"Show one tenant."`
	List   tenantList   `cmd:"" help:"List tenants by name."`
	Update tenantUpdate `cmd:"" help:"Change a tenant."`
	Delete tenantDelete `cmd:"" help:"Remove a tenant with its users, agents and grants, and end its streams."`
}

var tenantColumns = append([]column[*stokerv1.Tenant]{
	{title: "TENANT", value: (*stokerv1.Tenant).GetName},
	{title: "DISPLAY NAME", value: (*stokerv1.Tenant).GetDisplayName},
	{title: "STATE", value: stateOf[*stokerv1.Tenant]},
}, common[*stokerv1.Tenant]()...)

type tenantCreate struct {
	Name        string `arg:"" help:"Up to 31 lower-case letters, digits and dashes."`
	DisplayName string `help:"A name for people."`
	Disable     bool   `help:"Issue nothing to it for now."`
}

func (c *tenantCreate) Run(a *api) error {
	r, err := a.tenants.CreateTenant(a.ctx, &stokerv1.CreateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: c.Name, DisplayName: c.DisplayName, Disabled: c.Disable},
	})
	if err != nil {
		return err
	}
	return a.done(r.GetTenant(), "created tenant %s", c.Name)
}

type tenantGet struct {
	Name string `arg:""`
}

func (c *tenantGet) Run(a *api) error {
	r, err := a.tenants.GetTenant(a.ctx, &stokerv1.GetTenantRequest{Name: c.Name})
	if err != nil {
		return err
	}
	return show(a.output, tenantColumns, r.GetTenant())
}

type tenantList struct{}

func (c *tenantList) Run(a *api) error {
	found, err := a.allTenants()
	if err != nil {
		return err
	}
	return showList(a.output, tenantColumns, found)
}

func (a *api) allTenants() ([]*stokerv1.Tenant, error) {
	return all(func(token string) ([]*stokerv1.Tenant, string, error) {
		r, err := a.tenants.ListTenants(a.ctx, &stokerv1.ListTenantsRequest{PageSize: pageSize, PageToken: token})
		return r.GetTenants(), r.GetNextPageToken(), err
	})
}

type tenantUpdate struct {
	Name        string  `arg:""`
	DisplayName *string `help:"A name for people; '' removes it."`
	switching
	unchanged
}

func (c *tenantUpdate) Run(a *api) error {
	var e edit
	t := &stokerv1.Tenant{
		Name: c.Name, Etag: c.Etag,
		DisplayName: given(&e, "display_name", c.DisplayName), Disabled: e.disabled(c.switching),
	}
	mask, err := e.paths()
	if err != nil {
		return err
	}
	r, err := a.tenants.UpdateTenant(a.ctx, &stokerv1.UpdateTenantRequest{Tenant: t, UpdateMask: mask})
	if err != nil {
		return err
	}
	return a.done(r.GetTenant(), "updated tenant %s", c.Name)
}

type tenantDelete struct {
	Name string `arg:""`
	unchanged
}

func (c *tenantDelete) Run(a *api) error {
	if err := a.confirm("delete tenant %s with its users, agents and grants", c.Name); err != nil {
		return err
	}
	r, err := a.tenants.DeleteTenant(a.ctx, &stokerv1.DeleteTenantRequest{Name: c.Name, Etag: c.Etag})
	if err != nil {
		return err
	}
	return a.done(r, "deleted tenant %s", c.Name)
}
