package adminapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

// lists reads a page of each list, as names.
func (c clients) lists(ctx context.Context) map[string]func(size int32, token string) ([]string, string, error) {
	return map[string]func(int32, string) ([]string, string, error){
		"tenants": func(size int32, token string) ([]string, string, error) {
			r, err := c.tenants.ListTenants(ctx, &stokerv1.ListTenantsRequest{PageSize: size, PageToken: token})
			return names(r.GetTenants()), r.GetNextPageToken(), err
		},
		"locations": func(size int32, token string) ([]string, string, error) {
			r, err := c.locations.ListLocations(ctx, &stokerv1.ListLocationsRequest{PageSize: size, PageToken: token})
			return names(r.GetLocations()), r.GetNextPageToken(), err
		},
		"agents of acme": func(size int32, token string) ([]string, string, error) {
			r, err := c.agents.ListAgents(ctx, &stokerv1.ListAgentsRequest{Tenant: "acme", PageSize: size, PageToken: token})
			return names(r.GetAgents()), r.GetNextPageToken(), err
		},
		"agents of borg": func(size int32, token string) ([]string, string, error) {
			r, err := c.agents.ListAgents(ctx, &stokerv1.ListAgentsRequest{Tenant: "borg", PageSize: size, PageToken: token})
			return names(r.GetAgents()), r.GetNextPageToken(), err
		},
		"users of acme": func(size int32, token string) ([]string, string, error) {
			r, err := c.users.ListUsers(ctx, &stokerv1.ListUsersRequest{Tenant: "acme", PageSize: size, PageToken: token})
			var logins []string
			for _, u := range r.GetUsers() {
				logins = append(logins, u.GetLogin())
			}
			return logins, r.GetNextPageToken(), err
		},
		"grants of acme": func(size int32, token string) ([]string, string, error) {
			r, err := c.grants.ListGrants(ctx, &stokerv1.GrantServiceListGrantsRequest{Tenant: "acme", PageSize: size, PageToken: token})
			return names(r.GetGrants()), r.GetNextPageToken(), err
		},
		"streams": func(size int32, token string) ([]string, string, error) {
			r, err := c.fleet.ListStreams(ctx, &stokerv1.ListStreamsRequest{PageSize: size, PageToken: token})
			return streamIDs(r), r.GetNextPageToken(), err
		},
		"streams of acme": func(size int32, token string) ([]string, string, error) {
			r, err := c.fleet.ListStreams(ctx, &stokerv1.ListStreamsRequest{Tenant: "acme", PageSize: size, PageToken: token})
			return streamIDs(r), r.GetNextPageToken(), err
		},
		"revocations": func(size int32, token string) ([]string, string, error) {
			r, err := c.fleet.ListRevocations(ctx, &stokerv1.ListRevocationsRequest{PageSize: size, PageToken: token})
			return revocationIDs(r), r.GetNextPageToken(), err
		},
		"all revocations": func(size int32, token string) ([]string, string, error) {
			r, err := c.fleet.ListRevocations(ctx, &stokerv1.ListRevocationsRequest{ShowExpired: true, PageSize: size, PageToken: token})
			return revocationIDs(r), r.GetNextPageToken(), err
		},
	}
}

func names[T interface{ GetName() string }](entities []T) (names []string) {
	for _, e := range entities {
		names = append(names, e.GetName())
	}
	return names
}

func streamIDs(r *stokerv1.ListStreamsResponse) (ids []string) {
	for _, s := range r.GetStreams() {
		ids = append(ids, s.GetId())
	}
	return ids
}

func revocationIDs(r *stokerv1.ListRevocationsResponse) (ids []string) {
	for _, v := range r.GetRevocations() {
		ids = append(ids, v.GetId())
	}
	return ids
}

// crowd makes a broker with a few of everything.
func crowd(t *testing.T) clients {
	t.Helper()
	c := start(t, func(c *adminapi.Config) { c.Streams = fewStreams })
	c.populate(t)
	for i := range 4 {
		name := fmt.Sprint("x", i)
		c.tenant(t, name)
		c.location(t, name, func(l *stokerv1.Location) { l.Bucket = "bucket-" + name })
		c.grant(t, "acme", name, nil)
		for _, tenant := range []string{"acme", "borg"} {
			must(c.agents.CreateAgent(t.Context(), &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: tenant, Name: name}}))(t)
		}
	}
	for range 2 {
		must(c.users.CreateUser(t.Context(), &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: fmt.Sprint("u", len(c.Records(t)))}}))(t)
		must(c.fleet.Revoke(t.Context(), &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}, Reason: "test"}))(t)
	}
	return c
}

func TestPagesMakeTheWholeList(t *testing.T) {
	c := crowd(t)
	for name, read := range c.lists(t.Context()) {
		t.Run(name, func(t *testing.T) {
			whole, next, err := read(0, "")
			if err != nil || next != "" || len(whole) < 2 {
				t.Fatalf("%d entries, next %q, %v", len(whole), next, err)
			}
			for _, size := range []int32{1, 2, int32(len(whole)), 1 << 30} {
				var pieces []string
				token := ""
				for pages := 0; pages == 0 || token != ""; pages++ {
					var page []string
					// The size may change from page to page.
					if page, token, err = read(size, token); err != nil {
						t.Fatal(err)
					}
					if len(page) == 0 || len(page) > int(size) {
						t.Fatalf("a page of %d with size %d", len(page), size)
					}
					pieces = append(pieces, page...)
				}
				if !slices.Equal(pieces, whole) {
					t.Errorf("pages of %d make %q, the list is %q", size, pieces, whole)
				}
			}
			if _, _, err := read(-1, ""); err == nil {
				t.Error("a negative size was taken")
			} else {
				refused(t, err, reason.InvalidRequest, "page_size is -1")
			}
		})
	}
}

func TestPageTokensAreRefused(t *testing.T) {
	c := crowd(t)
	lists := c.lists(t.Context())
	tokens := map[string]string{}
	for name, read := range lists {
		_, token, err := read(1, "")
		if err != nil || token == "" {
			t.Fatalf("%s: %q, %v", name, token, err)
		}
		tokens[name] = token
	}
	foreign := start(t, func(c *adminapi.Config) {
		c.Streams, c.PageKey = fewStreams, secret.New(strings.Repeat("k", 32))
	})
	foreign.populate(t)
	_, tokens["another broker"], _ = foreign.lists(t.Context())["tenants"](1, "")
	audit := must(c.audit.ListRecords(t.Context(), &stokerv1.ListRecordsRequest{PageSize: 1}))(t)
	tokens["audit"] = audit.GetNextPageToken()
	for name, read := range lists {
		own := tokens[name]
		forged := []string{"x", "AAAA", own[:len(own)-1], own + "A", own + "\n", own[:4] + "AAAA" + own[8:], strings.Repeat("A", 64), long, " ", own + own}
		for from, token := range tokens {
			if from != name {
				forged = append(forged, token)
			}
		}
		for _, token := range forged {
			_, _, err := read(1, token)
			refused(t, err, reason.InvalidRequest, "page_token is not one that this list gave out")
		}
		if _, _, err := read(1, own); err != nil {
			t.Errorf("%s: its own token: %v", name, err)
		}
	}
}

func TestPageTokensOfTheTrail(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	token := must(c.audit.ListRecords(t.Context(), &stokerv1.ListRecordsRequest{PageSize: 1, Tenant: "acme", Events: []string{"admin.created"}}))(t).GetNextPageToken()
	for name, r := range map[string]*stokerv1.ListRecordsRequest{
		"other tenant": {Tenant: "borg", Events: []string{"admin.created"}},
		"other events": {Tenant: "acme", Events: []string{"admin.created", "admin.updated"}},
		"shifted":      {Login: "acme", Events: []string{"admin.created"}},
		"since":        {Tenant: "acme", Events: []string{"admin.created"}, AfterTime: timestamppb.Now()},
	} {
		r.PageToken = token
		t.Run(name, func(t *testing.T) {
			_, err := c.audit.ListRecords(t.Context(), r)
			refused(t, err, reason.InvalidRequest, "page_token")
		})
	}
	must(c.audit.ListRecords(t.Context(), &stokerv1.ListRecordsRequest{PageToken: token, Tenant: "acme", Events: []string{"admin.created"}}))(t)
}

// A token of one replica is good at another.
func TestPageTokenAtAnotherReplica(t *testing.T) {
	one := start(t, nil)
	two := as(t, admintest.Start(t, admintest.Options{Share: one.Broker}), admintest.Viewer)
	one.tenant(t, "acme")
	one.tenant(t, "borg")
	first := must(one.tenants.ListTenants(t.Context(), &stokerv1.ListTenantsRequest{PageSize: 1}))(t)
	second := must(two.tenants.ListTenants(t.Context(), &stokerv1.ListTenantsRequest{PageToken: first.GetNextPageToken()}))(t)
	if got := names(second.GetTenants()); !slices.Equal(got, []string{"borg"}) {
		t.Errorf("the second replica goes on with %q", got)
	}
}
