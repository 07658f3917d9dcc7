package adminapi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/reason"
)

var long = strings.Repeat("a", 1<<16)

// names are the fields by which resources are found and made, each with the
// calls that read it.
func nameCalls(ctx context.Context, c clients) map[string]func(string) error {
	return map[string]func(string) error{
		"tenant.name": func(s string) error {
			_, err := c.tenants.CreateTenant(ctx, &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: s}})
			return err
		},
		"name of GetTenant": func(s string) error {
			_, err := c.tenants.GetTenant(ctx, &stokerv1.GetTenantRequest{Name: s})
			return err
		},
		"name of UpdateTenant": func(s string) error {
			_, err := c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: s}})
			return err
		},
		"name of DeleteTenant": func(s string) error {
			_, err := c.tenants.DeleteTenant(ctx, &stokerv1.DeleteTenantRequest{Name: s})
			return err
		},
		"user.tenant": func(s string) error {
			_, err := c.users.CreateUser(ctx, &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: s, Login: "x"}})
			return err
		},
		"user.login": func(s string) error {
			_, err := c.users.CreateUser(ctx, &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: s}})
			return err
		},
		"login of GetUser": func(s string) error {
			_, err := c.users.GetUser(ctx, &stokerv1.GetUserRequest{Tenant: "acme", Login: s})
			return err
		},
		"tenant of ListUsers": func(s string) error {
			_, err := c.users.ListUsers(ctx, &stokerv1.ListUsersRequest{Tenant: s})
			return err
		},
		"login of DeleteUser": func(s string) error {
			_, err := c.users.DeleteUser(ctx, &stokerv1.DeleteUserRequest{Tenant: "acme", Login: s})
			return err
		},
		"agent.name": func(s string) error {
			_, err := c.agents.CreateAgent(ctx, &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: s}})
			return err
		},
		"name of UpdateAgent": func(s string) error {
			_, err := c.agents.UpdateAgent(ctx, &stokerv1.UpdateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: s}})
			return err
		},
		"name of InviteAgent": func(s string) error {
			_, err := c.agents.InviteAgent(ctx, &stokerv1.InviteAgentRequest{Tenant: "acme", Name: s})
			return err
		},
		"location.name": func(s string) error {
			_, err := c.locations.CreateLocation(ctx, &stokerv1.CreateLocationRequest{Location: &stokerv1.Location{Name: s}})
			return err
		},
		"name of UpdateLocation": func(s string) error {
			_, err := c.locations.UpdateLocation(ctx, &stokerv1.UpdateLocationRequest{Location: &stokerv1.Location{Name: s}})
			return err
		},
		"grant.name": func(s string) error {
			_, err := c.grants.CreateGrant(ctx, &stokerv1.CreateGrantRequest{Grant: newGrant("acme", s, nil)})
			return err
		},
		"grant.location": func(s string) error {
			_, err := c.grants.CreateGrant(ctx, &stokerv1.CreateGrantRequest{Grant: newGrant("acme", "x", func(g *stokerv1.Grant) { g.Location = s })})
			return err
		},
		"name of UpdateGrant": func(s string) error {
			_, err := c.grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{Grant: newGrant("acme", s, nil)})
			return err
		},
		"name of DeleteGrant": func(s string) error {
			_, err := c.grants.DeleteGrant(ctx, &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: s})
			return err
		},
		"tenant of ListStreams": func(s string) error {
			if s == "" {
				return errSkip // means all
			}
			_, err := c.fleet.ListStreams(ctx, &stokerv1.ListStreamsRequest{Tenant: s})
			return err
		},
		"agent of ListStreams": func(s string) error {
			if s == "" {
				return errSkip
			}
			_, err := c.fleet.ListStreams(ctx, &stokerv1.ListStreamsRequest{Agent: s})
			return err
		},
		"tenant of Revoke": func(s string) error {
			_, err := c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: s}, Reason: "r"})
			return err
		},
		"user of Revoke": func(s string) error {
			_, err := c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: s + "@acme"}, Reason: "r"})
			return err
		},
		"agent of Revoke": func(s string) error {
			_, err := c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: "acme/" + s}, Reason: "r"})
			return err
		},
		"grant of Revoke": func(s string) error {
			_, err := c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: "acme/" + s}, Reason: "r"})
			return err
		},
	}
}

var errSkip = errors.New("not a name here")

func TestNamesAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	before := len(c.Records(t))
	for where, call := range nameCalls(t.Context(), c) {
		for _, bad := range []string{"", "-a", ".a", "a b", "ä", "a\x00", "a/b", "a\nb", "*", "${aws:username}", long} {
			if err := call(bad); !errors.Is(err, errSkip) {
				t.Run(fmt.Sprintf("%s %.20q", where, bad), func(t *testing.T) { refused(t, err, reason.InvalidRequest, "") })
			}
		}
	}
	if got := len(c.Records(t)); got != before {
		t.Errorf("%d records were written of what was refused", got-before)
	}
}

// What exists in another tenant, or nowhere, is not found.
func TestForeignAndUnknownNames(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	c.grant(t, "borg", "music", nil)
	must(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "borg", Login: "borgia"}}))(t)
	for name, err := range map[string]error{
		"user of another tenant":        last(c.users.GetUser(t.Context(), &stokerv1.GetUserRequest{Tenant: "acme", Login: "borgia"})),
		"update of a foreign user":      last(c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "borgia"}})),
		"grant of another tenant":       last(c.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "music"})),
		"delete of a foreign grant":     last(c.grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "music"})),
		"grant for a foreign user":      last(c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant("acme", "x", func(g *stokerv1.Grant) { g.Login = "borgia" })})),
		"tenant that is not there":      last(c.tenants.GetTenant(t.Context(), &stokerv1.GetTenantRequest{Name: "nobody"})),
		"agent that is not there":       last(c.agents.GetAgent(t.Context(), &stokerv1.GetAgentRequest{Tenant: "acme", Name: "nobody"})),
		"location that is not there":    last(c.locations.GetLocation(t.Context(), &stokerv1.GetLocationRequest{Name: "nowhere"})),
		"agent made in no tenant":       last(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "nobody", Name: "x"}})),
		"grant at no location":          last(c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant("acme", "x", func(g *stokerv1.Grant) { g.Location = "nowhere" })})),
		"update of no tenant":           last(c.tenants.UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "nobody"}})),
		"update of no location":         last(c.locations.UpdateLocation(t.Context(), &stokerv1.UpdateLocationRequest{Location: &stokerv1.Location{Name: "nowhere"}})),
		"certificate for no agent":      last(c.agents.IssueAgentCertificate(t.Context(), &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: "nobody", CertificateRequest: newRequest(t)})),
		"invitation to no tenant":       last(c.agents.InviteAgent(t.Context(), &stokerv1.InviteAgentRequest{Tenant: "nobody", Name: "x"})),
		"streams of no tenant":          last(c.fleet.ListStreams(t.Context(), &stokerv1.ListStreamsRequest{Tenant: "nobody"})),
		"revocation of a foreign grant": last(c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: "acme/music"}, Reason: "r"})),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, reason.NotFound, "there is no ") })
	}
}

func last[T any](_ T, err error) error { return err }

func TestTakenNames(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for name, err := range map[string]error{
		"tenant":   last(c.tenants.CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme"}})),
		"user":     last(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "NIGHTLY"}})),
		"agent":    last(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "server-1"}})),
		"location": last(c.locations.CreateLocation(t.Context(), &stokerv1.CreateLocationRequest{Location: &stokerv1.Location{Name: "frankfurt", Account: "main", Bucket: "another", Region: "eu-central-1"}})),
		"grant":    last(c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant("acme", "photos", nil)})),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, reason.AlreadyExists, "exists already; choose another name") })
	}
}

func TestMissingMessages(t *testing.T) {
	c := start(t, nil)
	ctx := t.Context()
	for name, err := range map[string]error{
		"CreateTenant":          last(c.tenants.CreateTenant(ctx, nil)),
		"UpdateTenant":          last(c.tenants.UpdateTenant(ctx, nil)),
		"CreateUser":            last(c.users.CreateUser(ctx, nil)),
		"UpdateUser":            last(c.users.UpdateUser(ctx, nil)),
		"CreateAgent":           last(c.agents.CreateAgent(ctx, nil)),
		"UpdateAgent":           last(c.agents.UpdateAgent(ctx, nil)),
		"CreateLocation":        last(c.locations.CreateLocation(ctx, nil)),
		"UpdateLocation":        last(c.locations.UpdateLocation(ctx, nil)),
		"CreateGrant":           last(c.grants.CreateGrant(ctx, nil)),
		"UpdateGrant":           last(c.grants.UpdateGrant(ctx, nil)),
		"Revoke without reason": last(c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}})),
		"Revoke of nobody":      last(c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Reason: "r"})),
		"WhoIs":                 last(c.audit.WhoIs(ctx, nil)),
		"WhoIs of nothing":      last(c.audit.WhoIs(ctx, &stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{}})),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, reason.InvalidRequest, "is ") })
	}
}

func TestTextsAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	ctx := t.Context()
	tenant := func(display string) error {
		return last(c.tenants.CreateTenant(ctx, &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "x", DisplayName: display}}))
	}
	revoke := func(r *stokerv1.RevokeRequest) error {
		if r.Reason == "" {
			r.Reason = "r"
		}
		return last(c.fleet.Revoke(ctx, r))
	}
	for name, refusal := range map[string]struct {
		err  error
		says string
	}{
		"long display name":     {tenant(strings.Repeat("ä", 129)), "tenant.display_name has 129 characters; at most 128"},
		"display name, control": {tenant("a\nb"), "has the character U+000A"},
		"display name, bidi":    {tenant("a\u202eb"), "has the character U+202E"},
		"display name, update": {last(c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{
			Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: "a\x00"}})), "U+0000"},
		"long reason":           {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}, Reason: strings.Repeat("a", 257)}), "reason has 257"},
		"user without tenant":   {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_User{User: "nightly"}}), "is not written login@tenant"},
		"agent without tenant":  {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Agent{Agent: "server-1"}}), "is not written tenant/agent"},
		"grant without tenant":  {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Grant{Grant: long}}), "is not written tenant/grant"},
		"no credential's id":    {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Credential{Credential: "{" + long}}), "is no credential's id"},
		"no serial number":      {revoke(&stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: "xyz"}}), "a serial number is hexadecimal"},
		"long access key":       {last(c.audit.WhoIs(ctx, &stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: long}})), "access_key_id has"},
		"session name, control": {last(c.audit.WhoIs(ctx, &stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_SessionName{SessionName: "a\x00"}})), "session_name has"},
		"empty event":           {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{Events: []string{""}})), "events has an empty name"},
		"long event":            {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{Events: []string{long}})), "events has"},
		"many events":           {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{Events: make([]string, 101)})), "events has 101 names"},
		"long filter":           {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{Agent: long})), "agent has"},
		"no time":               {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{AfterTime: &timestamppb.Timestamp{Seconds: 1 << 60}})), "after_time is no time"},
		"no time either":        {last(c.audit.ListRecords(ctx, &stokerv1.ListRecordsRequest{BeforeTime: &timestamppb.Timestamp{Nanos: -1}})), "before_time is no time"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, refusal.err, reason.InvalidRequest, refusal.says) })
	}
}

func TestLocationsAreRefused(t *testing.T) {
	c := start(t, nil)
	for name, change := range map[string]struct {
		change func(*stokerv1.Location)
		says   string
	}{
		"no account":        {func(l *stokerv1.Location) { l.Account = "" }, "location.account"},
		"unknown account":   {func(l *stokerv1.Location) { l.Account = "other" }, `"other" is not in the broker's configuration; use one of main, short`},
		"no bucket":         {func(l *stokerv1.Location) { l.Bucket = "" }, "location.bucket"},
		"bucket pattern":    {func(l *stokerv1.Location) { l.Bucket = "back*" }, "location.bucket"},
		"bucket ARN":        {func(l *stokerv1.Location) { l.Bucket = "arn:aws:s3:::b" }, "location.bucket"},
		"long bucket":       {func(l *stokerv1.Location) { l.Bucket = long }, "location.bucket"},
		"no region":         {func(l *stokerv1.Location) { l.Region = "" }, "location.region is missing"},
		"odd region":        {func(l *stokerv1.Location) { l.Region = "eu central" }, "location.region"},
		"long region":       {func(l *stokerv1.Location) { l.Region = long }, "location.region"},
		"no URL":            {func(l *stokerv1.Location) { l.Endpoint = "s3.example.com" }, "is no http or https URL"},
		"another scheme":    {func(l *stokerv1.Location) { l.Endpoint = "ftp://s3.example.com" }, "is no http or https URL"},
		"URL with user":     {func(l *stokerv1.Location) { l.Endpoint = "https://u:hidden@s3.example.com" }, "location.endpoint holds a user"},
		"URL with path":     {func(l *stokerv1.Location) { l.Endpoint = "https://s3.example.com/a" }, "has more than scheme, host and port"},
		"URL with query":    {func(l *stokerv1.Location) { l.Endpoint = "https://s3.example.com?" }, "has more than scheme, host and port"},
		"long URL":          {func(l *stokerv1.Location) { l.Endpoint = "https://" + long }, "location.endpoint has"},
		"key alias":         {func(l *stokerv1.Location) { l.KmsKeyArn = "arn:aws:kms:eu-central-1:123456789012:alias/a" }, "location.kms_key_arn"},
		"key of elsewhere":  {func(l *stokerv1.Location) { l.KmsKeyArn = "arn:aws:kms:eu-west-1:123456789012:key/a" }, "location.region"},
		"key's partition":   {func(l *stokerv1.Location) { l.KmsKeyArn = "arn:aws-cn:kms:eu-central-1:123456789012:key/a" }, "location.kms_key_arn"},
		"two faults at one": {func(l *stokerv1.Location) { l.Bucket, l.KmsKeyArn = "B", "k" }, "; location.kms_key_arn"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &stokerv1.Location{Name: "x", Account: "main", Bucket: "backups", Region: "eu-central-1"}
			change.change(l)
			_, err := c.locations.CreateLocation(t.Context(), &stokerv1.CreateLocationRequest{Location: l})
			refused(t, err, reason.InvalidRequest, change.says)
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Error("the message repeats a password")
			}
		})
	}
}

func TestGrantsAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for name, change := range map[string]struct {
		change func(*stokerv1.Grant)
		says   string
	}{
		"no access":           {func(g *stokerv1.Grant) { g.Access = 0 }, "grant.access is missing or unknown"},
		"unknown access":      {func(g *stokerv1.Grant) { g.Access = 99 }, "grant.access is missing or unknown"},
		"no prefix":           {func(g *stokerv1.Grant) { g.Prefix = "" }, "grant.prefix"},
		"no slash":            {func(g *stokerv1.Grant) { g.Prefix = "acme" }, `does not end in "/"`},
		"star":                {func(g *stokerv1.Grant) { g.Prefix = "acme*/" }, "grant.prefix"},
		"question mark":       {func(g *stokerv1.Grant) { g.Prefix = "acm?/" }, "grant.prefix"},
		"variable":            {func(g *stokerv1.Grant) { g.Prefix = "${aws:username}/" }, "grant.prefix"},
		"dots":                {func(g *stokerv1.Grant) { g.Prefix = "acme/../borg/" }, "grant.prefix"},
		"not Latin-1":         {func(g *stokerv1.Grant) { g.Prefix = "данные/" }, "grant.prefix"},
		"900 characters":      {func(g *stokerv1.Grant) { g.Prefix = strings.Repeat("a", 899) + "/" }, "grant.prefix"},
		"64 kB":               {func(g *stokerv1.Grant) { g.Prefix = long + "/" }, "grant.prefix"},
		"actions without":     {func(g *stokerv1.Grant) { g.Access = stokerv1.Access_ACCESS_ACTIONS }, "grant.actions"},
		"actions beside":      {func(g *stokerv1.Grant) { g.Actions = []string{"s3:GetObject"} }, "grant.actions"},
		"wildcard action":     {func(g *stokerv1.Grant) { g.Access, g.Actions = stokerv1.Access_ACCESS_ACTIONS, []string{"s3:*"} }, "grant.actions"},
		"many actions":        {func(g *stokerv1.Grant) { g.Access, g.Actions = stokerv1.Access_ACCESS_ACTIONS, make([]string, 5000) }, "grant.actions"},
		"short lifetime":      {func(g *stokerv1.Grant) { g.Lifetime = durationpb.New(14 * time.Minute) }, "give 15m0s to 12h0m0s"},
		"long lifetime":       {func(g *stokerv1.Grant) { g.Lifetime = durationpb.New(13 * time.Hour) }, "give 15m0s to 12h0m0s"},
		"negative lifetime":   {func(g *stokerv1.Grant) { g.Lifetime = durationpb.New(-time.Hour) }, "grant.lifetime"},
		"fraction":            {func(g *stokerv1.Grant) { g.Lifetime = durationpb.New(time.Hour + 1) }, "whole seconds"},
		"no duration":         {func(g *stokerv1.Grant) { g.Lifetime = &durationpb.Duration{Seconds: 1 << 60} }, "whole seconds"},
		"malformed login":     {func(g *stokerv1.Grant) { g.Login = "a b" }, "grant.login"},
		"inside another's":    {func(g *stokerv1.Grant) { g.Prefix = "acme/photos/2026/" }, `grant "photos" of tenant "acme"`},
		"around another's":    {func(g *stokerv1.Grant) { g.Prefix = "acme/" }, `grant "photos" of tenant "acme"`},
		"another's very self": {func(g *stokerv1.Grant) { g.Prefix = "acme/photos/" }, `grant "photos" of tenant "acme"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrant("borg", "x", change.change)
			_, err := c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: g})
			refused(t, err, reason.InvalidRequest, change.says)
		})
	}
	t.Run("update", func(t *testing.T) {
		c.grant(t, "borg", "music", nil)
		_, err := c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
			Grant:      &stokerv1.Grant{Tenant: "borg", Name: "music", Prefix: "acme/"},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"prefix"}},
		})
		refused(t, err, reason.InvalidRequest, `grant "photos" of tenant "acme"`)
	})
}

func TestPasswordsAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for name, weak := range map[string]string{"short": "short", "long": strings.Repeat("x7", 200), "well known": "passwordpassword", "own login": "weakling-weakling"} {
		t.Run(name, func(t *testing.T) {
			_, err := c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "weakling"}, Password: weak})
			refused(t, err, reason.PasswordWeak, "password")
			_, err = c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "nightly"}, Password: weak})
			if name != "own login" {
				refused(t, err, reason.PasswordWeak, "password")
			}
		})
	}
	_, err := c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: "acme", Login: "nightly"}, Password: password, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	refused(t, err, reason.InvalidRequest, "update_mask does not name it")
}

func TestMasksAreRefused(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	for _, paths := range [][]string{{"nothing"}, {"disabled", "name"}, {""}, {"*"}, {"Disabled"}, {long}, make([]string, 65)} {
		mask := &fieldmaskpb.FieldMask{Paths: paths}
		for kind, err := range map[string]error{
			"tenant":   last(c.tenants.UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme"}, UpdateMask: mask})),
			"user":     last(c.users.UpdateUser(t.Context(), &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "nightly"}, UpdateMask: mask})),
			"agent":    last(c.agents.UpdateAgent(t.Context(), &stokerv1.UpdateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "server-1"}, UpdateMask: mask})),
			"location": last(c.locations.UpdateLocation(t.Context(), &stokerv1.UpdateLocationRequest{Location: &stokerv1.Location{Name: "frankfurt"}, UpdateMask: mask})),
			"grant":    last(c.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{Grant: newGrant("acme", "photos", nil), UpdateMask: mask})),
		} {
			t.Run(fmt.Sprintf("%s %d %.20q", kind, len(paths), paths), func(t *testing.T) {
				refused(t, err, reason.InvalidRequest, "update_mask")
			})
		}
	}
}

func TestInUse(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	_, err := c.locations.DeleteLocation(t.Context(), &stokerv1.DeleteLocationRequest{Name: "frankfurt"})
	refused(t, err, reason.InUse, "in use by grants")
}

// Roles are checked by authn's rules before a handler runs; here is that they
// are in force on these services.
func TestRoles(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	viewer, stranger := as(t, c.Broker, admintest.Viewer), as(t, c.Broker, admintest.Stranger)
	must(viewer.tenants.GetTenant(t.Context(), &stokerv1.GetTenantRequest{Name: "acme"}))(t)
	_, err := viewer.tenants.CreateTenant(t.Context(), &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "x"}})
	refused(t, err, reason.RoleTooLow, "the role admin")
	_, err = as(t, c.Broker, admintest.Operator).grants.DeleteGrant(t.Context(), &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "photos"})
	refused(t, err, reason.RoleTooLow, "the role admin")
	_, err = stranger.tenants.ListTenants(t.Context(), &stokerv1.ListTenantsRequest{})
	refused(t, err, reason.OperatorUnknown, "sam")
}
