package main

import (
	"encoding/json"

	"github.com/goccy/go-yaml"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type exportCommand struct {
	Tenant []string `help:"Only this tenant; repeat it for more. Locations are left out then."`
}

// Help is what export --help adds.
func (*exportCommand) Help() string {
	return "Passwords and certificates are not in it: the broker does not have the one and cannot give the other's key."
}

func (c *exportCommand) Run(a *api) error {
	var file resourceFile
	if len(c.Tenant) == 0 {
		found, err := a.allLocations()
		if err != nil {
			return err
		}
		file.Locations = map[string]locationEntry{}
		for _, l := range found {
			file.Locations[l.GetName()] = exportLocation(l)
		}
	}
	found, err := c.tenants(a)
	if err != nil {
		return err
	}
	file.Tenants = map[string]tenantEntry{}
	for _, t := range found {
		if file.Tenants[t.GetName()], err = a.exportTenant(t); err != nil {
			return err
		}
	}
	text, err := yaml.MarshalWithOptions(file, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return err
	}
	if a.json {
		converted, err := yaml.YAMLToJSON(text)
		if err != nil {
			return err
		}
		return a.printJSON(json.RawMessage(converted))
	}
	_, err = a.out.Write(text)
	return err
}

func (c *exportCommand) tenants(a *api) ([]*stokerv1.Tenant, error) {
	if len(c.Tenant) == 0 {
		return a.allTenants()
	}
	var found []*stokerv1.Tenant
	for _, name := range c.Tenant {
		r, err := a.tenants.GetTenant(a.ctx, &stokerv1.GetTenantRequest{Name: name})
		if err != nil {
			return nil, err
		}
		found = append(found, r.GetTenant())
	}
	return found, nil
}

// some leaves out what a new resource has anyway.
func some[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

func exportLocation(l *stokerv1.Location) locationEntry {
	return locationEntry{
		Account: some(l.GetAccount()), Bucket: some(l.GetBucket()), Region: some(l.GetRegion()),
		Endpoint: some(l.GetEndpoint()), KMSKeyARN: some(l.GetKmsKeyArn()),
	}
}

func (a *api) exportTenant(t *stokerv1.Tenant) (tenantEntry, error) {
	e := tenantEntry{
		DisplayName: some(t.GetDisplayName()), Disabled: some(t.GetDisabled()),
		Users: map[string]userEntry{}, Agents: map[string]agentEntry{}, Grants: map[string]grantEntry{},
	}
	users, err := a.allUsers(t.GetName())
	if err != nil {
		return e, err
	}
	for _, u := range users {
		e.Users[u.GetLogin()] = userEntry{Disabled: some(u.GetDisabled())}
	}
	agents, err := a.allAgents(t.GetName())
	if err != nil {
		return e, err
	}
	for _, v := range agents {
		e.Agents[v.GetName()] = agentEntry{Disabled: some(v.GetDisabled())}
	}
	grants, err := a.allGrants(t.GetName())
	if err != nil {
		return e, err
	}
	for _, g := range grants {
		e.Grants[g.GetName()] = exportGrant(g)
	}
	return e, nil
}

func exportGrant(g *stokerv1.Grant) grantEntry {
	e := grantEntry{
		Login: some(g.GetLogin()), Location: some(g.GetLocation()), Prefix: some(g.GetPrefix()),
		Access: some(accessName(g.GetAccess())), Lifetime: some(g.GetLifetime().AsDuration()), Disabled: some(g.GetDisabled()),
	}
	if actions := g.GetActions(); len(actions) > 0 {
		e.Actions = &actions
	}
	return e
}
