package stream

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// sts issues whatever is asked for.
type sts struct{ calls atomic.Int64 }

func (s *sts) Issue(_ context.Context, r issuer.Request) (issuer.Credential, error) {
	n := s.calls.Add(1)
	now := time.Now()
	return issuer.Credential{
		AccessKeyID: fmt.Sprint("ASIA", n), SecretAccessKey: secret.New("s"), SessionToken: secret.New("t"),
		IssuedAt: now, Expires: now.Add(r.Duration),
	}, nil
}

// authority entitles by the broker's directory and checker.
type authority struct{ *broker }

func (a authority) Entitle(h lease.Holder, grantID string) (lease.Entitlement, error) {
	p := principal(0)
	p.TenantID, p.AgentID, p.UserID, p.Certificate.Serial = h.TenantID, h.AgentID, h.UserID, h.Certificate.Serial
	if err := a.checker.Check(p); err != nil {
		return lease.Entitlement{}, err
	}
	g, ok := a.directory.Grant(grantID)
	switch {
	case !ok:
		return lease.Entitlement{}, reason.New(reason.GrantDeleted, "gone")
	case g.Disabled:
		return lease.Entitlement{}, reason.New(reason.GrantDisabled, "off")
	}
	g.Lifetime, g.Prefix = time.Hour, "p/"
	return lease.Entitlement{Grant: g, Account: "main", Policy: `{"Statement":[{}]}`, PolicyHash: "h" + g.Prefix, Fence: 0}, nil
}

func (authority) Revoked(lease.Holder, string, string, time.Time) bool { return false }
func (authority) RevokedSerial(string) (string, bool)                  { return "", false }
func (authority) Revocation(string) (storage.Revocation, bool)         { return storage.Revocation{}, false }
func (authority) Sync(context.Context) error                           { return nil }

type trail struct{}

func (trail) Append(_ context.Context, r storage.AuditRecord, _ int64) (storage.AuditRecord, error) {
	return r, nil
}
func (trail) Healthy() error { return nil }
func (trail) FindIssue(context.Context, string) (storage.AuditRecord, error) {
	return storage.AuditRecord{}, storage.ErrNotFound
}

// With the real leases behind them agents are supplied for two days, each
// credential newer than the last, and lose what they lose with its reason.
func TestWithLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t)
		b.grants("a", "b")
		service := &sts{}
		manager, err := lease.New(lease.Config{
			Accounts:  map[string]lease.Account{"main": {Issuer: service, Rate: 100, MinLifetime: 15 * time.Minute, MaxLifetime: time.Hour}},
			Authority: authority{b}, Trail: trail{}, History: trail{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Leases = Managed(manager)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := manager.Run(ctx); err != nil {
				t.Errorf("leases: %v", err)
			}
		}()
		t.Cleanup(func() { cancel(); <-done })
		changed := func(kind storage.Kind, id string) {
			manager.Changed(change(kind, id))
			b.Changed(change(kind, id))
		}

		var agents []*agent
		for i := range 10 {
			agents = append(agents, b.connect(principal(i), Subscribe{}))
		}
		rest(48 * time.Hour)
		for i, a := range agents {
			last := map[string]*lease.Credential{}
			for _, m := range a.take() {
				c := m.Credential
				if c == nil {
					continue
				}
				if before := last[c.Grant]; before != nil {
					if !c.IssuedAt.After(before.IssuedAt) {
						t.Fatalf("agent %d: issue times do not grow", i)
					}
					if left := before.Expires.Sub(c.IssuedAt); left < 20*time.Minute {
						t.Fatalf("agent %d: renewed with %s left", i, left)
					}
				}
				last[c.Grant] = c
			}
			if len(last) != 2 {
				t.Fatalf("agent %d has credentials for %d grants", i, len(last))
			}
		}

		b.directory.put(storage.Grant{Meta: storage.Meta{ID: "a"}, TenantID: "t1", Name: "a", Disabled: true})
		changed(storage.KindGrant, "a")
		agents[0].got(t, "revoked a GRANT_DISABLED")
		b.grants("a")
		changed(storage.KindGrant, "a")
		rest(time.Second)
		agents[0].got(t, "credential a")
		b.directory.remove("b")
		changed(storage.KindGrant, "b")
		agents[0].got(t, "revoked b GRANT_DELETED")
		b.checker.refuse("t1", reason.TenantDisabled)
		changed(storage.KindTenant, "t1")
		for _, a := range agents {
			a.ended(t, reason.TenantDisabled)
		}
	})
}
