package adminapi_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/reason"
)

// Every resource is made, read, listed, changed and removed, and the trail has
// each change with its old and new values.
func TestLifeOfATenant(t *testing.T) {
	c := start(t, nil)
	made := must(c.tenants.CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: "Acme GmbH", Id: "ignored", Etag: "ignored"},
	}))(t).GetTenant()
	if made.GetId() == "" || made.GetId() == "ignored" || made.GetEtag() == "ignored" || made.GetCreateTime().AsTime().IsZero() {
		t.Errorf("made %v", made)
	}
	read := must(c.tenants.GetTenant(t.Context(), &stokerv1.GetTenantRequest{Name: "acme"}))(t).GetTenant()
	if !proto.Equal(made, read) {
		t.Errorf("read %v, made %v", read, made)
	}
	changed := must(c.tenants.UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{
		Tenant:     &stokerv1.Tenant{Name: "acme", Disabled: true, Etag: made.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	}))(t).GetTenant()
	if !changed.GetDisabled() || changed.GetDisplayName() != "Acme GmbH" || changed.GetEtag() == made.GetEtag() || changed.GetId() != made.GetId() {
		t.Errorf("changed %v", changed)
	}
	if d, ok := c.Directory.TenantByName("acme"); !ok || !d.Disabled {
		t.Error("the change was answered and is not in force")
	}
	listed := must(c.tenants.ListTenants(t.Context(), &stokerv1.ListTenantsRequest{}))(t)
	if len(listed.GetTenants()) != 1 || !proto.Equal(listed.GetTenants()[0], changed) || listed.GetNextPageToken() != "" {
		t.Errorf("listed %v", listed)
	}
	must(c.tenants.DeleteTenant(t.Context(), &stokerv1.DeleteTenantRequest{Name: "acme", Etag: changed.GetEtag()}))(t)
	if _, ok := c.Directory.TenantByName("acme"); ok {
		t.Error("the removal was answered and is not in force")
	}
	want := []string{
		"admin.created kind=tenant name=acme new.disabled=false new.display_name=Acme GmbH",
		"admin.updated kind=tenant name=acme new.disabled=true old.disabled=false",
		"admin.deleted kind=tenant name=acme old.disabled=true old.display_name=Acme GmbH",
	}
	if got := c.changes(t); !slices.Equal(got, want) {
		t.Errorf("the trail has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, r := range c.Records(t) {
		if !strings.HasPrefix(r.Event, "admin.") {
			continue
		}
		if r.Actor != "spiffe://backup.example/operator/ann" || r.TenantID != made.GetId() || r.Tenant != "acme" ||
			r.RequestID == "" || r.CertificateSerial == "" || r.CertificateThumbprint == "" || r.Peer == "" {
			t.Errorf("the record does not say who or what: %+v", r)
		}
	}
}

func TestLifeOfAUser(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	made := must(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "Nightly.1"}}))(t)
	if made.GetUser().GetLogin() != "nightly.1" || len(made.GetGeneratedPassword()) < 12 {
		t.Errorf("made %v", made)
	}
	stored := must(c.Store.GetUser(t.Context(), made.GetUser().GetId()))(t)
	if ok, err := c.Passwords.Verify(t.Context(), stored.PasswordHash, secretOf(made.GetGeneratedPassword())); err != nil || !ok {
		t.Errorf("the generated password does not verify: %v", err)
	}
	given := must(c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "NIGHTLY.1"}, Password: password,
	}))(t)
	again := must(c.Store.GetUser(t.Context(), made.GetUser().GetId()))(t)
	if ok, err := c.Passwords.Verify(t.Context(), again.PasswordHash, secretOf(password)); err != nil || !ok || again.PasswordVersion != 2 || given.GetGeneratedPassword() != "" {
		t.Errorf("after the new password: version %d, %v", again.PasswordVersion, err)
	}
	disabled := must(c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "nightly.1", Disabled: true}}))(t)
	if !disabled.GetUser().GetDisabled() || must(c.Store.GetUser(t.Context(), stored.ID))(t).PasswordVersion != 2 {
		t.Error("an empty mask without a password did more than disable, or less")
	}
	regenerated := must(c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "nightly.1"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"password"}},
	}))(t)
	if regenerated.GetGeneratedPassword() == "" || !regenerated.GetUser().GetDisabled() {
		t.Errorf("with password in the mask: %v", regenerated)
	}
	read := must(c.users.GetUser(t.Context(), &stokerv1.GetUserRequest{Tenant: "acme", Login: "nightly.1"}))(t).GetUser()
	listed := must(c.users.ListUsers(t.Context(), &stokerv1.ListUsersRequest{Tenant: "acme"}))(t)
	if !proto.Equal(read, regenerated.GetUser()) || len(listed.GetUsers()) != 1 || !proto.Equal(listed.GetUsers()[0], read) {
		t.Errorf("read %v, listed %v", read, listed)
	}
	must(c.users.DeleteUser(t.Context(), &stokerv1.DeleteUserRequest{Tenant: "acme", Login: "nightly.1"}))(t)
	want := []string{
		"admin.created kind=user name=nightly.1@acme new.disabled=false new.password_version=1",
		"admin.updated kind=user name=nightly.1@acme new.password_version=2 old.password_version=1",
		"admin.updated kind=user name=nightly.1@acme new.disabled=true old.disabled=false",
		"admin.updated kind=user name=nightly.1@acme new.password_version=3 old.password_version=2",
		"admin.deleted kind=user name=nightly.1@acme old.disabled=true old.password_version=3",
	}
	if got := c.changes(t)[1:]; !slices.Equal(got, want) {
		t.Errorf("the trail has\n%s", strings.Join(got, "\n"))
	}
	c.noSecrets(t, password, made.GetGeneratedPassword(), regenerated.GetGeneratedPassword(), stored.PasswordHash, again.PasswordHash)
}

func TestLifeOfAnAgent(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	made := must(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "server-1"}}))(t).GetAgent()
	disabled := must(c.agents.UpdateAgent(t.Context(), &stokerv1.UpdateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "server-1", Disabled: true}}))(t).GetAgent()
	read := must(c.agents.GetAgent(t.Context(), &stokerv1.GetAgentRequest{Tenant: "acme", Name: "server-1"}))(t).GetAgent()
	listed := must(c.agents.ListAgents(t.Context(), &stokerv1.ListAgentsRequest{Tenant: "acme"}))(t).GetAgents()
	if !disabled.GetDisabled() || !proto.Equal(read, disabled) || len(listed) != 1 || !proto.Equal(listed[0], read) || read.GetId() != made.GetId() {
		t.Errorf("made %v, changed %v, read %v, listed %v", made, disabled, read, listed)
	}
	must(c.agents.DeleteAgent(t.Context(), &stokerv1.DeleteAgentRequest{Tenant: "acme", Name: "server-1", Etag: read.GetEtag()}))(t)
	want := []string{
		"admin.created kind=agent name=acme/server-1 new.disabled=false",
		"admin.updated kind=agent name=acme/server-1 new.disabled=true old.disabled=false",
		"admin.deleted kind=agent name=acme/server-1 old.disabled=true",
	}
	if got := c.changes(t)[1:]; !slices.Equal(got, want) {
		t.Errorf("the trail has\n%s", strings.Join(got, "\n"))
	}
}

func TestLifeOfALocation(t *testing.T) {
	c := start(t, nil)
	made := c.location(t, "minio", func(l *stokerv1.Location) { l.Endpoint, l.Region = "http://minio.internal:9000", "us-east-1" })
	changed := must(c.locations.UpdateLocation(t.Context(), &stokerv1.UpdateLocationRequest{
		Location:   &stokerv1.Location{Name: "minio", Bucket: "other", Etag: made.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"bucket"}},
	}))(t).GetLocation()
	read := must(c.locations.GetLocation(t.Context(), &stokerv1.GetLocationRequest{Name: "minio"}))(t).GetLocation()
	listed := must(c.locations.ListLocations(t.Context(), &stokerv1.ListLocationsRequest{}))(t).GetLocations()
	if changed.GetBucket() != "other" || changed.GetEndpoint() != made.GetEndpoint() || !proto.Equal(read, changed) || len(listed) != 1 || !proto.Equal(listed[0], read) {
		t.Errorf("changed %v, read %v, listed %v", changed, read, listed)
	}
	must(c.locations.DeleteLocation(t.Context(), &stokerv1.DeleteLocationRequest{Name: "minio"}))(t)
	want := []string{
		"admin.created kind=location name=minio new.account=main new.bucket=backups new.endpoint=http://minio.internal:9000 new.kms_key_arn= new.region=us-east-1",
		"admin.updated kind=location name=minio new.bucket=other old.bucket=backups",
		"admin.deleted kind=location name=minio old.account=main old.bucket=other old.endpoint=http://minio.internal:9000 old.kms_key_arn= old.region=us-east-1",
	}
	if got := c.changes(t); !slices.Equal(got, want) {
		t.Errorf("the trail has\n%s", strings.Join(got, "\n"))
	}
}

func TestLifeOfAGrant(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	must(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "nightly"}}))(t)
	c.location(t, "frankfurt", nil)
	c.location(t, "brief", func(l *stokerv1.Location) { l.Account, l.Bucket = "short", "elsewhere" })
	made := c.grant(t, "acme", "photos", nil)
	if made.GetLifetime().AsDuration() != time.Hour || made.GetLogin() != "" || made.GetLocation() != "frankfurt" {
		t.Errorf("made %v", made)
	}
	if brief := c.grant(t, "acme", "brief", func(g *stokerv1.Grant) { g.Location = "brief" }); brief.GetLifetime().AsDuration() != 30*time.Minute {
		t.Errorf("the default is not cut to the account's maximum: %v", brief)
	}
	changed := must(c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{
			Tenant: "acme", Name: "photos", Login: "Nightly", Location: "frankfurt", Prefix: "acme/new/", Access: stokerv1.Access_ACCESS_ACTIONS,
			Actions: []string{"s3:GetObject"}, Lifetime: durationpb.New(15 * time.Minute), Disabled: true, Etag: made.GetEtag(),
		},
	}))(t).GetGrant()
	got := must(c.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "photos"}))(t)
	listed := must(c.grants.ListGrants(t.Context(), &stokerv1.GrantServiceListGrantsRequest{Tenant: "acme"}))(t).GetGrants()
	if changed.GetLogin() != "nightly" || !proto.Equal(got.GetGrant(), changed) || len(listed) != 2 || !proto.Equal(listed[1], changed) {
		t.Errorf("changed %v, read %v, listed %v", changed, got, listed)
	}
	if !strings.Contains(got.GetSessionPolicy(), `"arn:aws:s3:::backups/acme/new/*"`) {
		t.Errorf("session policy %s", got.GetSessionPolicy())
	}
	must(c.grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "photos", Etag: changed.GetEtag()}))(t)
	want := []string{
		"admin.created kind=grant name=acme/photos new.access=backup new.actions= new.disabled=false new.lifetime=1h0m0s new.location=frankfurt new.login= new.prefix=acme/photos/",
		"admin.updated kind=grant name=acme/photos new.access=actions new.actions=s3:GetObject new.disabled=true new.lifetime=15m0s new.login=nightly new.prefix=acme/new/ " +
			"old.access=backup old.actions= old.disabled=false old.lifetime=1h0m0s old.login= old.prefix=acme/photos/",
		"admin.deleted kind=grant name=acme/photos old.access=actions old.actions=s3:GetObject old.disabled=true old.lifetime=15m0s old.location=frankfurt old.login=nightly old.prefix=acme/new/",
	}
	var photos []string
	for _, line := range c.changes(t) {
		if strings.Contains(line, "acme/photos") {
			photos = append(photos, line)
		}
	}
	if !slices.Equal(photos, want) {
		t.Errorf("the trail has\n%s", strings.Join(photos, "\n"))
	}
}

// A list of actions that is longer than a text of the trail goes on under more
// keys.
func TestLongActionsAreWhollyInTheTrail(t *testing.T) {
	c := start(t, nil)
	c.tenant(t, "acme")
	c.location(t, "frankfurt", nil)
	actions := allActions()
	c.grant(t, "acme", "photos", func(g *stokerv1.Grant) { g.Access, g.Actions = stokerv1.Access_ACCESS_ACTIONS, actions })
	records := c.Records(t)
	detail := records[len(records)-1].Detail
	got := strings.Join([]string{detail["new.actions"], detail["new.actions.2"]}, " ")
	if got != strings.Join(actions, " ") {
		t.Errorf("the trail has %q", got)
	}
}

// An update that changes nothing leaves no trace, so that apply can be
// repeated.
func TestUpdateOfNothing(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	before := len(c.changes(t))
	made := must(c.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "photos"}))(t).GetGrant()
	same := must(c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{Grant: made}))(t).GetGrant()
	if !proto.Equal(same, made) || len(c.changes(t)) != before {
		t.Errorf("the same again gave %v, was %v", same, made)
	}
}

// Deleting a tenant takes along what belongs to it, deleting a user the user's
// own grants.
func TestDeletesTakeAlong(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	c.grant(t, "acme", "own", func(g *stokerv1.Grant) { g.Login = "nightly" })
	must(c.users.DeleteUser(t.Context(), &stokerv1.DeleteUserRequest{Tenant: "acme", Login: "nightly"}))(t)
	_, err := c.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "own"})
	refused(t, err, reason.NotFound, `there is no grant "acme/own"`)
	must(c.tenants.DeleteTenant(t.Context(), &stokerv1.DeleteTenantRequest{Name: "acme"}))(t)
	_, err = c.agents.ListAgents(t.Context(), &stokerv1.ListAgentsRequest{Tenant: "acme"})
	refused(t, err, reason.NotFound, `there is no tenant "acme"`)
	must(c.locations.DeleteLocation(t.Context(), &stokerv1.DeleteLocationRequest{Name: "frankfurt"}))(t)
}

// A grant that the configuration would not let in any more can be disabled.
func TestDisablingUnderAStricterConfiguration(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	g, _ := c.Directory.GrantByName(mustTenant(t, c, "acme"), "photos")
	g.Lifetime = 100 * time.Hour
	must(c.Store.UpdateGrant(t.Context(), g))(t)
	disabled := must(c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "acme", Name: "photos", Disabled: true},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	}))(t).GetGrant()
	if !disabled.GetDisabled() {
		t.Error("not disabled")
	}
	_, err := c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant:      &stokerv1.Grant{Tenant: "acme", Name: "photos", Prefix: "acme/new/"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"prefix"}},
	})
	refused(t, err, reason.InvalidRequest, "100h0m0s is outside of what account")
}
