package adminapi_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/stokerd/stoker/internal/polling"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/admintest"
	"github.com/stokerd/stoker/server/internal/adminapi"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

func TestEtags(t *testing.T) {
	c := start(t, nil)
	c.populate(t)
	ctx := t.Context()
	mask := &fieldmaskpb.FieldMask{Paths: []string{"disabled"}}
	for _, stale := range []string{"stale", "AAAAAAAAAAAAAAAA", strings.Repeat("a", 64)} {
		for kind, err := range map[string]error{
			"update tenant":   last(c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme", Etag: stale}, UpdateMask: mask})),
			"delete tenant":   last(c.tenants.DeleteTenant(ctx, &stokerv1.DeleteTenantRequest{Name: "acme", Etag: stale})),
			"update user":     last(c.users.UpdateUser(ctx, &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "nightly", Etag: stale}, UpdateMask: mask})),
			"delete user":     last(c.users.DeleteUser(ctx, &stokerv1.DeleteUserRequest{Tenant: "acme", Login: "nightly", Etag: stale})),
			"update agent":    last(c.agents.UpdateAgent(ctx, &stokerv1.UpdateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "server-1", Etag: stale}})),
			"delete agent":    last(c.agents.DeleteAgent(ctx, &stokerv1.DeleteAgentRequest{Tenant: "acme", Name: "server-1", Etag: stale})),
			"update location": last(c.locations.UpdateLocation(ctx, &stokerv1.UpdateLocationRequest{Location: &stokerv1.Location{Name: "frankfurt", Etag: stale}})),
			"update grant":    last(c.grants.UpdateGrant(ctx, &stokerv1.UpdateGrantRequest{Grant: newGrant("acme", "photos", func(g *stokerv1.Grant) { g.Etag = stale })})),
			"delete grant":    last(c.grants.DeleteGrant(ctx, &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "photos", Etag: stale})),
		} {
			t.Run(kind, func(t *testing.T) { refused(t, err, reason.EtagMismatch, "was changed by somebody else") })
		}
	}
	_, err := c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme", Etag: long}})
	refused(t, err, reason.InvalidRequest, "etag has")
}

// An etag belongs to one tenant, not to its name.
func TestEtagOfADeletedTenant(t *testing.T) {
	c := start(t, nil)
	old := c.tenant(t, "acme").GetEtag()
	must(c.tenants.DeleteTenant(t.Context(), &stokerv1.DeleteTenantRequest{Name: "acme"}))(t)
	if fresh := c.tenant(t, "acme").GetEtag(); fresh == old {
		t.Fatal("the new tenant has the old one's etag")
	}
	_, err := c.tenants.DeleteTenant(t.Context(), &stokerv1.DeleteTenantRequest{Name: "acme", Etag: old})
	refused(t, err, reason.EtagMismatch, "")
}

// Of operators who send the same etag at once exactly one is heard; without
// etags all are.
func TestOperatorsAtOnce(t *testing.T) {
	c := start(t, nil)
	etag := c.tenant(t, "acme").GetEtag()
	const operators = 4
	together := func(etag string) (heard int64) {
		var wg sync.WaitGroup
		var n atomic.Int64
		for i := range operators {
			wg.Go(func() {
				_, err := c.tenants.UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{
					Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: strings.Repeat("x", i+1) + etag, Etag: etag},
				})
				switch {
				case err == nil:
					n.Add(1)
				case apierr.Reason(status.Convert(err)) != reason.EtagMismatch:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return n.Load()
	}
	if heard := together(etag); heard != 1 {
		t.Errorf("%d of %d with one etag were heard", heard, operators)
	}
	if heard := together(""); heard != operators {
		t.Errorf("%d of %d without etags were heard", heard, operators)
	}
	// The trail has a second record for each that lost after its first.
	var updates, failures int
	for _, line := range c.changes(t) {
		switch {
		case strings.Contains(line, "outcome=failed"):
			failures++
		case strings.HasPrefix(line, "admin.updated"):
			updates++
		}
	}
	if updates-failures != 1+operators {
		t.Errorf("%d updates and %d failures in the trail, %d took place", updates, failures, 1+operators)
	}
}

// Of operators who grant overlapping prefixes to two tenants at once one is
// refused, on one replica as on two.
func TestOverlappingGrantsAtOnce(t *testing.T) {
	one := start(t, nil)
	two := as(t, admintest.Start(t, admintest.Options{Share: one.Broker}), admintest.Admin)
	for _, tenant := range []string{"acme", "borg"} {
		one.tenant(t, tenant)
	}
	one.location(t, "frankfurt", nil)
	for name, other := range map[string]clients{"one replica": one, "two replicas": two} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			var made atomic.Int64
			prefix := strings.ReplaceAll(name, " ", "-") + "/"
			for tenant, c := range map[string]clients{"acme": one, "borg": other} {
				wg.Go(func() {
					g := newGrant(tenant, strings.ReplaceAll(name, " ", "-"), func(g *stokerv1.Grant) { g.Prefix = prefix })
					_, err := c.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: g})
					switch {
					case err == nil:
						made.Add(1)
					case apierr.Reason(status.Convert(err)) != reason.InvalidRequest:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if made.Load() > 1 {
				t.Error("both were made")
			}
			standing := 0
			for _, l := range one.Directory.Locations() {
				must(struct{}{}, one.Directory.Sync(t.Context()))(t)
				for _, g := range one.Directory.GrantsAt(l.ID) {
					if g.Prefix == prefix {
						standing++
					}
				}
			}
			if int64(standing) != made.Load() {
				t.Errorf("%d were made and %d stand", made.Load(), standing)
			}
		})
	}
}

// rival is a store in which, between the check and the write of a grant or
// location, another replica's operator makes a grant that overlaps.
type rival struct {
	adminapi.Store
	once func()
}

func (s *rival) strike() {
	if once := s.once; once != nil {
		s.once = nil
		once()
	}
}

func (s *rival) CreateGrant(ctx context.Context, g storage.Grant) (storage.Grant, error) {
	s.strike()
	return s.Store.CreateGrant(ctx, g)
}

func (s *rival) UpdateGrant(ctx context.Context, g storage.Grant) (storage.Grant, error) {
	s.strike()
	return s.Store.UpdateGrant(ctx, g)
}

func (s *rival) UpdateLocation(ctx context.Context, l storage.Location) (storage.Location, error) {
	s.strike()
	return s.Store.UpdateLocation(ctx, l)
}

// What another replica did between the check and the write is found after the
// write, which is then taken back.
func TestRivalOnAnotherReplica(t *testing.T) {
	var store *rival
	one := start(t, func(c *adminapi.Config) {
		store = &rival{Store: c.Store}
		c.Store = store
	})
	two := as(t, admintest.Start(t, admintest.Options{Share: one.Broker}), admintest.Admin)
	one.populate(t)
	one.location(t, "paris", func(l *stokerv1.Location) { l.Bucket = "paris" })
	one.grant(t, "acme", "moving", func(g *stokerv1.Grant) { g.Location, g.Prefix = "paris", "contested/b/" })
	strike := func(name, prefix, location string) func() {
		return func() {
			two.grant(t, "borg", name, func(g *stokerv1.Grant) { g.Prefix, g.Location = prefix, location })
		}
	}

	store.once = strike("first", "contested/", "frankfurt")
	_, err := one.grants.CreateGrant(t.Context(), &stokerv1.CreateGrantRequest{Grant: newGrant("acme", "new", func(g *stokerv1.Grant) { g.Prefix = "contested/a/" })})
	refused(t, err, reason.InvalidRequest, `grant "first" of tenant "borg"`)
	_, err = one.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "new"})
	refused(t, err, reason.NotFound, "")

	store.once = strike("second", "disputed/", "frankfurt")
	_, err = one.grants.UpdateGrant(t.Context(), &stokerv1.UpdateGrantRequest{
		Grant: &stokerv1.Grant{Tenant: "acme", Name: "photos", Prefix: "disputed/a/"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"prefix"}},
	})
	refused(t, err, reason.InvalidRequest, `grant "second" of tenant "borg"`)
	if g := must(one.grants.GetGrant(t.Context(), &stokerv1.GetGrantRequest{Tenant: "acme", Name: "photos"}))(t).GetGrant(); g.GetPrefix() != "acme/photos/" {
		t.Errorf("the update stands: %v", g)
	}

	two.location(t, "rome", func(l *stokerv1.Location) { l.Bucket = "rome" })
	store.once = strike("third", "contested/", "rome")
	_, err = one.locations.UpdateLocation(t.Context(), &stokerv1.UpdateLocationRequest{
		Location: &stokerv1.Location{Name: "paris", Bucket: "rome"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"bucket"}},
	})
	refused(t, err, reason.InvalidRequest, `grant "third" of tenant "borg"`)
	if l := must(one.locations.GetLocation(t.Context(), &stokerv1.GetLocationRequest{Name: "paris"}))(t).GetLocation(); l.GetBucket() != "paris" {
		t.Errorf("the update stands: %v", l)
	}
}

// deaf is a trail that fails when told to.
type deaf struct {
	adminapi.Trail
	// refuse says whether to fail the nth append from now, from 1.
	refuse func(n int) bool
	n      int
	after  func()
}

func (d *deaf) Append(ctx context.Context, r storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	d.n++
	if d.refuse != nil && d.refuse(d.n) {
		return r, reason.New(reason.AuditUnavailable, "the audit trail cannot be written")
	}
	r, err := d.Trail.Append(ctx, r, fence)
	if d.after != nil {
		d.after()
	}
	return r, err
}

// No record, no change.
func TestNothingChangesWithoutARecord(t *testing.T) {
	trail := &deaf{}
	c := start(t, func(c *adminapi.Config) {
		trail.Trail = c.Trail
		c.Trail = trail
	})
	c.populate(t)
	trail.refuse = func(int) bool { return true }
	head := must(c.Store.Head(t.Context()))(t)
	ctx := t.Context()
	for name, err := range map[string]error{
		"create": last(c.tenants.CreateTenant(ctx, &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "x"}})),
		"update": last(c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme", Disabled: true}})),
		"delete": last(c.tenants.DeleteTenant(ctx, &stokerv1.DeleteTenantRequest{Name: "acme"})),
		"user":   last(c.users.CreateUser(ctx, &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "x"}})),
		"grant":  last(c.grants.DeleteGrant(ctx, &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "photos"})),
		"certificate": last(c.agents.IssueAgentCertificate(ctx, &stokerv1.IssueAgentCertificateRequest{
			Tenant: "acme", Name: "server-1", CertificateRequest: newRequest(t)})),
		"invitation":               last(c.agents.InviteAgent(ctx, &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "server-1"})),
		"revocation":               last(c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Tenant{Tenant: "acme"}, Reason: "r"})),
		"certificate's revocation": last(c.fleet.Revoke(ctx, &stokerv1.RevokeRequest{Target: &stokerv1.RevokeRequest_Certificate{Certificate: "ab"}, Reason: "r"})),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, reason.AuditUnavailable, "") })
	}
	if now := must(c.Store.Head(t.Context()))(t); now != head {
		t.Errorf("%d changes were made", now-head)
	}
}

// broken is a store whose writes of tenants fail.
type broken struct {
	adminapi.Store
	err error
}

func (s *broken) UpdateTenant(ctx context.Context, v storage.Tenant) (storage.Tenant, error) {
	if s.err != nil {
		return storage.Tenant{}, s.err
	}
	return s.Store.UpdateTenant(ctx, v)
}

// A record of what then did not happen is followed by one that says so.
func TestFailuresAfterTheRecord(t *testing.T) {
	store, trail := &broken{}, &deaf{}
	c := start(t, func(c *adminapi.Config) {
		store.Store, trail.Trail = c.Store, c.Trail
		c.Store, c.Trail = store, trail
	})
	c.tenant(t, "acme")
	disable := func(ctx context.Context) error {
		return last(c.tenants.UpdateTenant(ctx, &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme", Disabled: true}}))
	}
	lastChange := func() string { all := c.changes(t); return all[len(all)-1] }

	store.err = errors.Join(storage.ErrUnavailable, errors.New("disk full"))
	err := disable(t.Context())
	refused(t, err, reason.StorageUnavailable, "")
	if strings.Contains(err.Error(), "disk") {
		t.Errorf("the cause reaches the caller: %v", err)
	}
	if got := lastChange(); got != "admin.updated kind=tenant name=acme outcome=failed reason:STORAGE_UNAVAILABLE" {
		t.Errorf("the trail ends with %s", got)
	}
	records := c.Records(t)
	if a, b := records[len(records)-2], records[len(records)-1]; a.RequestID != b.RequestID || a.RequestID == "" {
		t.Errorf("the request ids %q and %q do not join the two", a.RequestID, b.RequestID)
	}

	store.err = errors.Join(storage.ErrUnavailable, storage.ErrInDoubt)
	refused(t, disable(t.Context()), reason.StorageUnavailable, "")
	if got := lastChange(); got != "admin.updated kind=tenant name=acme outcome=unknown reason:STORAGE_UNAVAILABLE" {
		t.Errorf("the trail ends with %s", got)
	}

	// The second record cannot be written: the answer is the first failure.
	trail.n, trail.refuse = 0, func(n int) bool { return n == 2 }
	refused(t, disable(t.Context()), reason.StorageUnavailable, "")
	trail.refuse = nil

	// The caller hangs up once the record is durable: the change takes place.
	store.err = nil
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	trail.after = cancel
	if err := disable(ctx); status.Code(err) != codes.Canceled {
		t.Errorf("after hanging up: %v", err)
	}
	// Another change waits for its turn behind it in the store.
	trail.after = nil
	must(c.tenants.UpdateTenant(t.Context(), &stokerv1.UpdateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: "Acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}},
	}))(t)
	polling.Until(t.Context(), t, "the tenant to be disabled", func() bool {
		d, _ := c.Directory.TenantByName("acme")
		return d.Disabled
	})
	if !slices.ContainsFunc(c.changes(t), func(line string) bool {
		return line == "admin.updated kind=tenant name=acme new.disabled=true old.disabled=false"
	}) {
		t.Error("the record is missing")
	}
}
