package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/strictyaml"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// difference is one field that does not have the value of the file.
type difference struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// step is one thing to do.
type step struct {
	Action   string       `json:"action"` // create or update
	Resource string       `json:"resource"`
	Changes  []difference `json:"changes"`
	Done     bool         `json:"done"`
	// GeneratedPassword is set once a user was created with one.
	GeneratedPassword string `json:"generatedPassword,omitempty"`
	do                func() (generated string, err error)
}

const (
	actionCreate = "create"
	actionUpdate = "update"
)

// planner finds out what has to be done to make the broker's resources what a
// file says.
type planner struct {
	*api
	file *resourceFile
	doc  *strictyaml.Document
	// dir is what the file's paths are relative to.
	dir       string
	steps     []*step
	unchanged int
}

// comparison goes through the fields of one resource.
type comparison struct {
	changes []difference
	mask    []string
}

// field gives the value that the resource shall have: the file's, or where the
// file says nothing the present one.
func field[T comparable](c *comparison, name string, want *T, have T) T {
	if want == nil || *want == have {
		return have
	}
	c.changes = append(c.changes, difference{name, fmt.Sprint(have), fmt.Sprint(*want)})
	c.mask = append(c.mask, name)
	return *want
}

// add files a step that creates the resource, or updates it if it differs.
func (p *planner) add(resource string, c *comparison, isNew bool, create, update func() (string, error)) {
	switch {
	case isNew:
		p.steps = append(p.steps, &step{Action: actionCreate, Resource: resource, Changes: c.changes, do: create})
	case len(c.changes) > 0:
		p.steps = append(p.steps, &step{Action: actionUpdate, Resource: resource, Changes: c.changes, do: update})
	default:
		p.unchanged++
	}
}

// require reports a key that a new resource cannot be without.
func (p *planner) require(at, key string, value *string) {
	if value == nil {
		p.doc.Add(at, "is new and needs the key %s", key)
	}
}

// plan fills in the steps, in an order in which each finds what it refers to.
// All that can be known to be wrong is reported before anything is done.
func (p *planner) plan() error {
	locations, err := p.allLocations()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, l := range locations {
		known[l.GetName()] = true
	}
	p.planLocations(locations)
	for _, name := range slices.Sorted(maps.Keys(p.file.Locations)) {
		known[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.file.Tenants)) {
		if err := p.planTenant(name, p.file.Tenants[name], known); err != nil {
			return err
		}
	}
	// Locations and tenants stand before what refers to them already; grants
	// refer to users of their own tenant, which stand before them too.
	if err := p.doc.Err(); err != nil {
		return &usageError{err.Error()}
	}
	return nil
}

// byName finds the present state of a resource.
func byName[M any](messages []M, name func(M) string) map[string]M {
	found := map[string]M{}
	for _, m := range messages {
		found[name(m)] = m
	}
	return found
}

func (p *planner) planLocations(present []*stokerv1.Location) {
	found := byName(present, (*stokerv1.Location).GetName)
	for _, name := range slices.Sorted(maps.Keys(p.file.Locations)) {
		want, have := p.file.Locations[name], found[name]
		if have == nil {
			at := "locations." + name
			p.require(at, "account", want.Account)
			p.require(at, "bucket", want.Bucket)
			p.require(at, "region", want.Region)
		}
		c := &comparison{}
		l := &stokerv1.Location{
			Name: name, Etag: have.GetEtag(),
			Account:   field(c, "account", want.Account, have.GetAccount()),
			Bucket:    field(c, "bucket", want.Bucket, have.GetBucket()),
			Region:    field(c, "region", want.Region, have.GetRegion()),
			Endpoint:  field(c, "endpoint", want.Endpoint, have.GetEndpoint()),
			KmsKeyArn: field(c, "kms_key_arn", want.KMSKeyARN, have.GetKmsKeyArn()),
		}
		p.add("location "+name, c, have == nil, func() (string, error) {
			_, err := p.locations.CreateLocation(p.ctx, &stokerv1.CreateLocationRequest{Location: l})
			return "", err
		}, func() (string, error) {
			_, err := p.locations.UpdateLocation(p.ctx, &stokerv1.UpdateLocationRequest{Location: l, UpdateMask: c.paths()})
			return "", err
		})
	}
}

func (c *comparison) paths() *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: c.mask} }

func (p *planner) planTenant(name string, want tenantEntry, locations map[string]bool) error {
	r, err := p.tenants.GetTenant(p.ctx, &stokerv1.GetTenantRequest{Name: name})
	if err != nil && explain(err).reason != "NOT_FOUND" {
		return err
	}
	have := r.GetTenant()
	c := &comparison{}
	t := &stokerv1.Tenant{
		Name: name, Etag: have.GetEtag(),
		DisplayName: field(c, "display_name", want.DisplayName, have.GetDisplayName()),
		Disabled:    field(c, "disabled", want.Disabled, have.GetDisabled()),
	}
	p.add("tenant "+name, c, have == nil, func() (string, error) {
		_, err := p.tenants.CreateTenant(p.ctx, &stokerv1.CreateTenantRequest{Tenant: t})
		return "", err
	}, func() (string, error) {
		_, err := p.tenants.UpdateTenant(p.ctx, &stokerv1.UpdateTenantRequest{Tenant: t, UpdateMask: c.paths()})
		return "", err
	})
	members, err := p.members(name, have != nil)
	if err != nil {
		return err
	}
	p.planUsers(name, want.Users, members.users)
	p.planAgents(name, want.Agents, members.agents)
	p.planGrants(name, want, members, locations)
	return nil
}

// members are the present members of a tenant.
type members struct {
	users  map[string]*stokerv1.User
	agents map[string]*stokerv1.Agent
	grants map[string]*stokerv1.Grant
}

func (p *planner) members(tenant string, exists bool) (m members, err error) {
	if !exists {
		return m, nil
	}
	users, err := p.allUsers(tenant)
	if err != nil {
		return m, err
	}
	agents, err := p.allAgents(tenant)
	if err != nil {
		return m, err
	}
	grants, err := p.allGrants(tenant)
	if err != nil {
		return m, err
	}
	return members{
		byName(users, (*stokerv1.User).GetLogin), byName(agents, (*stokerv1.Agent).GetName), byName(grants, (*stokerv1.Grant).GetName),
	}, nil
}

func (p *planner) planUsers(tenant string, wanted map[string]userEntry, present map[string]*stokerv1.User) {
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		want, have := wanted[name], present[name]
		password := ""
		if have == nil && want.PasswordFile != nil {
			password = p.readPassword("tenants."+tenant+".users."+name+".password_file", *want.PasswordFile)
		}
		c := &comparison{}
		u := &stokerv1.User{
			Tenant: tenant, Login: name, Etag: have.GetEtag(),
			Disabled: field(c, "disabled", want.Disabled, have.GetDisabled()),
		}
		if have == nil {
			c.changes = append(c.changes, difference{Field: "password", To: cmp.Or(deref(want.PasswordFile), "(made by the broker)")})
		}
		p.add("user "+name+"@"+tenant, c, have == nil, func() (string, error) {
			r, err := p.users.CreateUser(p.ctx, &stokerv1.CreateUserRequest{User: u, Password: password})
			return r.GetGeneratedPassword(), err
		}, func() (string, error) {
			_, err := p.users.UpdateUser(p.ctx, &stokerv1.UpdateUserRequest{User: u, UpdateMask: c.paths()})
			return "", err
		})
	}
}

func deref[T any](v *T) (value T) {
	if v != nil {
		value = *v
	}
	return value
}

// readPassword reads the first line of a file.
func (p *planner) readPassword(at, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.dir, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		p.doc.Add(at, "%v", err)
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.TrimRight(line, "\r")
	if line == "" || len(line) > maxPassword {
		p.doc.Add(at, "%s has no password in its first line", path)
		return ""
	}
	return line
}

func (p *planner) planAgents(tenant string, wanted map[string]agentEntry, present map[string]*stokerv1.Agent) {
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		want, have := wanted[name], present[name]
		c := &comparison{}
		v := &stokerv1.Agent{
			Tenant: tenant, Name: name, Etag: have.GetEtag(),
			Disabled: field(c, "disabled", want.Disabled, have.GetDisabled()),
		}
		p.add("agent "+tenant+"/"+name, c, have == nil, func() (string, error) {
			_, err := p.agents.CreateAgent(p.ctx, &stokerv1.CreateAgentRequest{Agent: v})
			return "", err
		}, func() (string, error) {
			_, err := p.agents.UpdateAgent(p.ctx, &stokerv1.UpdateAgentRequest{Agent: v, UpdateMask: c.paths()})
			return "", err
		})
	}
}

func (p *planner) planGrants(tenant string, t tenantEntry, present members, locations map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(t.Grants)) {
		want, have := t.Grants[name], present.grants[name]
		p.checkGrant("tenants."+tenant+".grants."+name, want, have == nil, t.Users, present.users, locations)
		c := &comparison{}
		access := accessName(have.GetAccess())
		if have == nil {
			access = ""
		}
		g := &stokerv1.Grant{
			Tenant: tenant, Name: name, Etag: have.GetEtag(),
			Login:    field(c, "login", want.Login, have.GetLogin()),
			Location: field(c, "location", want.Location, have.GetLocation()),
			Prefix:   field(c, "prefix", want.Prefix, have.GetPrefix()),
			Disabled: field(c, "disabled", want.Disabled, have.GetDisabled()),
		}
		g.Access, _ = parseAccess(field(c, "access", want.Access, access))
		g.Actions = strings.Fields(field(c, "actions", joined(want.Actions), strings.Join(have.GetActions(), " ")))
		if lifetime := field(c, "lifetime", want.Lifetime, have.GetLifetime().AsDuration()); lifetime != 0 {
			g.Lifetime = durationpb.New(lifetime)
		}
		p.add("grant "+tenant+"/"+name, c, have == nil, func() (string, error) {
			_, err := p.grants.CreateGrant(p.ctx, &stokerv1.CreateGrantRequest{Grant: g})
			return "", err
		}, func() (string, error) {
			_, err := p.grants.UpdateGrant(p.ctx, &stokerv1.UpdateGrantRequest{Grant: g, UpdateMask: c.paths()})
			return "", err
		})
	}
}

// checkGrant reports what a grant refers to and is nowhere.
func (p *planner) checkGrant(at string, want grantEntry, isNew bool, users map[string]userEntry, present map[string]*stokerv1.User, locations map[string]bool) {
	if isNew {
		p.require(at, "location", want.Location)
		p.require(at, "prefix", want.Prefix)
		p.require(at, "access", want.Access)
	}
	if want.Location != nil && !locations[*want.Location] {
		p.doc.Add(at+".location", "there is no location %q, neither on the broker nor in this file", *want.Location)
	}
	if want.Login == nil || *want.Login == "" {
		return
	}
	_, here := users[*want.Login]
	if present[*want.Login] == nil && !here {
		p.doc.Add(at+".login", "the tenant has no user %q, neither on the broker nor in this file", *want.Login)
	}
}

func joined(list *[]string) *string {
	if list == nil {
		return nil
	}
	text := strings.Join(*list, " ")
	return &text
}
