package entitlement_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/entitlement"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// picture is a directory in maps.
type picture struct {
	sequence     int64
	grants       map[string]storage.Grant
	locations    map[string]storage.Location
	revocations  []storage.Revocation
	certificates map[string]storage.Certificate
	tenants      map[string]storage.Tenant
	read         int // how often the revocations were
}

func (p *picture) Sequence() int64            { return p.sequence }
func (p *picture) Sync(context.Context) error { return nil }
func (p *picture) Tenant(id string) (storage.Tenant, bool) {
	t, ok := p.tenants[id]
	return t, ok
}
func (p *picture) Grant(id string) (storage.Grant, bool) {
	g, ok := p.grants[id]
	return g, ok
}
func (p *picture) Location(id string) (storage.Location, bool) {
	l, ok := p.locations[id]
	return l, ok
}
func (p *picture) RevokedCertificate(id string) (storage.Certificate, bool) {
	c, ok := p.certificates[id]
	return c, ok
}
func (p *picture) Revocation(id string) (storage.Revocation, bool) {
	for _, r := range p.revocations {
		if r.ID == id {
			return r, true
		}
	}
	return storage.Revocation{}, false
}
func (p *picture) Revocations() []storage.Revocation {
	p.read++
	return p.revocations
}

// revoke replaces the revocations, as a change of the feed.
func (p *picture) revoke(all ...storage.Revocation) {
	p.revocations = all
	p.sequence++
}

// checker remembers whom it was asked about.
type checker struct {
	asked authn.Principal
	err   error
	// rule is the tenant and access that services may act for.
	rule [2]string
}

func (c *checker) AllowDelegation(_ authn.Principal, tenant, access string) error {
	if c.rule != [2]string{tenant, access} {
		return reason.New(reason.DelegationDenied, "no rule")
	}
	return nil
}

func (c *checker) Check(p authn.Principal) error {
	c.asked = p
	return c.err
}

func fixture() (*picture, *checker, lease.Holder) {
	d := &picture{
		sequence: 7,
		grants: map[string]storage.Grant{"g1": {
			Meta: storage.Meta{ID: "g1", Revision: 1}, TenantID: "t1", Name: "nightly", LocationID: "l1", Prefix: "acme/", Access: "backup",
		}},
		locations: map[string]storage.Location{"l1": {
			Meta: storage.Meta{ID: "l1", Revision: 1}, Name: "main", Account: "main", Bucket: "shared-bucket", Region: "eu-central-1",
		}},
		certificates: map[string]storage.Certificate{"c1": {Serial: "ab12"}},
		tenants:      map[string]storage.Tenant{"t1": {Meta: storage.Meta{ID: "t1"}, Name: "acme"}},
	}
	h := lease.Holder{
		TenantID: "t1", Tenant: "acme", UserID: "u1", Login: "backup", AgentID: "a1", Agent: "laptop", SessionID: "s1", PasswordVersion: 3,
		Certificate: lease.Certificate{Serial: "ff", Thumbprint: "ee", NotAfter: time.Unix(2e9, 0)},
		Actor:       "spiffe://x/tenant/acme/agent/laptop", Peer: "192.0.2.1:5",
	}
	return d, &checker{}, h
}

func TestEntitle(t *testing.T) {
	d, c, h := fixture()
	got, err := entitlement.New(d, c).Entitle(h, "g1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Fence != 7 || got.Account != "main" || got.Grant.ID != "g1" || got.Location.ID != "l1" || got.PolicyHash == "" ||
		!strings.Contains(got.Policy, "arn:aws:s3:::shared-bucket/acme/*") {
		t.Errorf("entitlement %+v", got)
	}
	// Everything that the check goes by must reach it.
	p := c.asked
	if p.Kind != authn.Agent || p.TenantID != "t1" || p.AgentID != "a1" || p.UserID != "u1" || p.PasswordVersion != 3 || p.SessionID != "s1" ||
		p.Certificate.Serial != "ff" || p.Certificate.Thumbprint != "ee" || !p.Certificate.NotAfter.Equal(h.Certificate.NotAfter) {
		t.Errorf("the check was asked about %+v", p)
	}
}

func TestEntitleRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*picture, *checker, *lease.Holder)
		want   reason.Reason
	}{
		"a principal that is no longer good": {func(_ *picture, c *checker, _ *lease.Holder) { c.err = reason.New(reason.UserDisabled, "x") }, reason.UserDisabled},
		"a deleted grant":                    {func(d *picture, _ *checker, _ *lease.Holder) { delete(d.grants, "g1") }, reason.GrantDeleted},
		"a disabled grant": {func(d *picture, _ *checker, _ *lease.Holder) {
			g := d.grants["g1"]
			g.Disabled = true
			d.grants["g1"] = g
		}, reason.GrantDisabled},
		"another tenant's grant": {func(_ *picture, _ *checker, h *lease.Holder) { h.TenantID = "t2" }, reason.GrantUnknown},
		"another user's grant": {func(d *picture, _ *checker, _ *lease.Holder) {
			g := d.grants["g1"]
			g.UserID = "u2"
			d.grants["g1"] = g
		}, reason.GrantUnknown},
		"a lost location": {func(d *picture, _ *checker, _ *lease.Holder) { delete(d.locations, "l1") }, reason.GrantInvalid},
		"a hostile prefix": {func(d *picture, _ *checker, _ *lease.Holder) {
			g := d.grants["g1"]
			g.Prefix = "acme*/"
			d.grants["g1"] = g
		}, reason.GrantInvalid},
		"nobody logged in": {func(_ *picture, _ *checker, h *lease.Holder) { h.UserID = "" }, reason.LoginRequired},
		"no agent":         {func(_ *picture, _ *checker, h *lease.Holder) { h.AgentID = "" }, reason.LoginRequired},
		"no tenant":        {func(_ *picture, _ *checker, h *lease.Holder) { h.TenantID = "" }, reason.LoginRequired},
	} {
		t.Run(name, func(t *testing.T) {
			d, check, h := fixture()
			c.change(d, check, &h)
			got, err := entitlement.New(d, check).Entitle(h, "g1")
			if reason.Of(err) != c.want || got.Policy != "" {
				t.Errorf("got %v and %+v, want %s", err, got, c.want)
			}
		})
	}
}

func TestPolicyFollowsItsGrantAndLocation(t *testing.T) {
	d, c, h := fixture()
	a := entitlement.New(d, c)
	before, err := a.Entitle(h, "g1")
	if err != nil {
		t.Fatal(err)
	}
	g := d.grants["g1"]
	g.Prefix, g.Revision = "acme/new/", 2
	d.grants["g1"] = g
	after, err := a.Entitle(h, "g1")
	if err != nil || after.PolicyHash == before.PolicyHash || !strings.Contains(after.Policy, "acme/new/*") {
		t.Errorf("the policy did not follow the grant: %v %+v", err, after)
	}
	l := d.locations["l1"]
	l.Bucket, l.Revision = "other-bucket", 2
	d.locations["l1"] = l
	moved, err := a.Entitle(h, "g1")
	if err != nil || !strings.Contains(moved.Policy, "arn:aws:s3:::other-bucket/acme/new/*") {
		t.Errorf("the policy did not follow the location: %v %+v", err, moved)
	}
	delete(d.grants, "g1")
	a.Forget([]storage.Change{{Kind: storage.KindGrant, ID: "g1"}, {Kind: storage.KindUser, ID: "g1"}})
	if _, err := a.Entitle(h, "g1"); !reason.Is(err, reason.GrantDeleted) {
		t.Errorf("a deleted grant: %v", err)
	}
}

func TestPartitionOfTheRegion(t *testing.T) {
	for region, want := range map[string]string{"eu-central-1": "arn:aws:s3", "cn-north-1": "arn:aws-cn:s3", "us-gov-west-1": "arn:aws-us-gov:s3"} {
		d, c, h := fixture()
		l := d.locations["l1"]
		l.Region = region
		d.locations["l1"] = l
		got, err := entitlement.New(d, c).Entitle(h, "g1")
		if err != nil || !strings.Contains(got.Policy, want) {
			t.Errorf("%s: %v %s", region, err, got.Policy)
		}
	}
}

func TestRevoked(t *testing.T) {
	d, c, h := fixture()
	moment := time.Unix(1000, 0)
	a := entitlement.New(d, c)
	for kind, target := range map[string]string{"tenant": "t1", "user": "u1", "agent": "a1", "grant": "g1"} {
		d.revoke(storage.Revocation{TargetKind: kind, TargetID: target, Before: moment})
		if !a.Revoked(h, "g1", "cred", moment) || !a.Revoked(h, "g1", "cred", moment.Add(-time.Hour)) {
			t.Errorf("%s: a credential from before is not revoked", kind)
		}
		if a.Revoked(h, "g1", "cred", moment.Add(time.Microsecond)) {
			t.Errorf("%s: a credential from after is revoked", kind)
		}
		d.revoke(storage.Revocation{TargetKind: kind, TargetID: "other", Before: moment})
		if a.Revoked(h, "g1", "cred", moment) {
			t.Errorf("another %s's revocation counts", kind)
		}
	}
	d.revoke(storage.Revocation{TargetKind: "credential", TargetID: "cred", Before: moment})
	if !a.Revoked(h, "g1", "cred", moment.Add(time.Hour)) || a.Revoked(h, "g1", "other", moment) {
		t.Error("a single credential's revocation is wrong")
	}
	if serial, ok := a.RevokedSerial("c1"); !ok || serial != "ab12" {
		t.Errorf("RevokedSerial = %q, %v", serial, ok)
	}
	if _, ok := a.Revocation("none"); ok {
		t.Error("a revocation that is not there was found")
	}
	if err := a.Sync(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Of several revocations of one party the latest counts.
func TestRevokedTwice(t *testing.T) {
	d, c, h := fixture()
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	a := entitlement.New(d, c)
	for _, order := range [][2]time.Time{{early, late}, {late, early}} {
		d.revoke(
			storage.Revocation{TargetKind: "user", TargetID: "u1", Before: order[0], Account: "main"},
			storage.Revocation{TargetKind: "user", TargetID: "u1", Before: order[1], Account: "other"},
		)
		if !a.Revoked(h, "g1", "cred", late) || a.Revoked(h, "g1", "cred", late.Add(1)) {
			t.Error("the later of two revocations does not count")
		}
	}
}

// A replica that goes on over the restoration of its storage may meet the same
// sequence and the same revisions again, with other contents.
func TestRestoredStorage(t *testing.T) {
	d, c, h := fixture()
	a := entitlement.New(d, c)
	before, err := a.Entitle(h, "g1")
	if err != nil || a.Revoked(h, "g1", "cred", time.Unix(1000, 0)) {
		t.Fatal("revoked from the start", err)
	}
	g := d.grants["g1"]
	g.Prefix, g.UpdatedAt = "acme/new/", time.Unix(5, 0)
	d.grants["g1"] = g
	got, err := a.Entitle(h, "g1")
	if err != nil || got.PolicyHash == before.PolicyHash || !strings.Contains(got.Policy, "acme/new/*") {
		t.Errorf("%v: the policy is still %s", err, got.Policy)
	}
	l := d.locations["l1"]
	l.Bucket, l.UpdatedAt = "new-bucket", time.Unix(6, 0)
	d.locations["l1"] = l
	if got, err = a.Entitle(h, "g1"); err != nil || !strings.Contains(got.Policy, "new-bucket") {
		t.Errorf("%v: the policy is still %s", err, got.Policy)
	}
	d.revocations = []storage.Revocation{{Meta: storage.Meta{ID: "r1"}, TargetKind: "agent", TargetID: "a1", Before: time.Unix(1000, 0)}}
	a.Forget([]storage.Change{{Kind: storage.KindRevocation, ID: "r1"}})
	if !a.Revoked(h, "g1", "cred", time.Unix(1000, 0)) {
		t.Error("the revocation does not count")
	}
}

// Whole fleets are asked about within the second that a revocation may take:
// what an answer costs must not grow with the number of revocations.
func TestRevokedCostsNothing(t *testing.T) {
	d, c, h := fixture()
	for i := range 2000 {
		d.revocations = append(d.revocations, storage.Revocation{TargetKind: "agent", TargetID: strconv.Itoa(i), Before: time.Unix(1000, 0)})
	}
	a := entitlement.New(d, c)
	a.Revoked(h, "g1", "cred", time.Unix(1000, 0))
	read := d.read
	if n := testing.AllocsPerRun(100, func() { a.Revoked(h, "g1", "cred", time.Unix(1000, 0)) }); n > 0 || d.read != read {
		t.Errorf("%v allocations, the revocations were read %d times more", n, d.read-read)
	}
}

func TestServices(t *testing.T) {
	service := lease.Holder{
		TenantID: "t1", Tenant: "acme", Actor: "spiffe://test.example/service/restorer",
		Certificate: lease.Certificate{Serial: "aa", NotAfter: time.Unix(2e9, 0)},
	}
	for name, c := range map[string]struct {
		change func(*picture, *checker, *lease.Holder)
		want   reason.Reason
	}{
		"allowed":         {func(*picture, *checker, *lease.Holder) {}, ""},
		"no rule":         {func(_ *picture, c *checker, _ *lease.Holder) { c.rule[0] = "other" }, reason.DelegationDenied},
		"not this access": {func(_ *picture, c *checker, _ *lease.Holder) { c.rule[1] = "restore" }, reason.DelegationDenied},
		"tenant disabled": {func(d *picture, _ *checker, _ *lease.Holder) {
			d.tenants["t1"] = storage.Tenant{Name: "acme", Disabled: true}
		}, reason.TenantDisabled},
		"tenant gone":       {func(d *picture, _ *checker, _ *lease.Holder) { delete(d.tenants, "t1") }, reason.TenantUnknown},
		"another's grant":   {func(_ *picture, _ *checker, h *lease.Holder) { h.TenantID = "t2" }, reason.GrantUnknown},
		"an operator":       {func(_ *picture, _ *checker, h *lease.Holder) { h.Actor = "spiffe://test.example/operator/eve" }, reason.LoginRequired},
		"an agent alone":    {func(_ *picture, _ *checker, h *lease.Holder) { h.Actor = "spiffe://test.example/tenant/acme/agent/a" }, reason.LoginRequired},
		"a service as user": {func(_ *picture, _ *checker, h *lease.Holder) { h.UserID = "u1" }, reason.LoginRequired},
		"a revoked service": {func(_ *picture, c *checker, _ *lease.Holder) { c.err = reason.New(reason.CertificateRevoked, "x") }, reason.CertificateRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			d, check, _ := fixture()
			check.rule = [2]string{"acme", "backup"}
			h := service
			c.change(d, check, &h)
			got, err := entitlement.New(d, check).Entitle(h, "g1")
			if reason.Of(err) != c.want || (c.want == "") != (got.Policy != "") {
				t.Errorf("got %v and %q, want %q", err, got.Policy, c.want)
			}
			if c.want == "" && (check.asked.Kind != authn.Service || check.asked.Name != "restorer") {
				t.Errorf("the check was asked about %+v", check.asked)
			}
		})
	}
}
