package delegation_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/delegation"
	"github.com/stokerd/stoker/server/internal/lease"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// world is all that a counter leans on.
type world struct {
	sequence int64
	records  []storage.AuditRecord
	// stale is how many records the feed overtakes.
	stale int
	// gone is what the leases answer once the feed has moved.
	gone error
}

func (w *world) Sequence() int64 { return w.sequence }

func (w *world) Sync(context.Context) error { return nil }

func (w *world) TenantByName(string) (storage.Tenant, bool) {
	return storage.Tenant{Meta: storage.Meta{ID: "t1"}, Name: "acme"}, true
}

func (w *world) GrantByName(string, string) (storage.Grant, bool) {
	return storage.Grant{Meta: storage.Meta{ID: "g1"}, TenantID: "t1", Name: "nightly", Access: "backup"}, true
}

func (w *world) Check(authn.Principal) error { return nil }

func (w *world) AllowDelegation(authn.Principal, string, string) error { return nil }

func (w *world) Credential(context.Context, lease.Holder, string, time.Duration) (lease.Credential, error) {
	if w.sequence > 0 && w.gone != nil {
		return lease.Credential{}, w.gone
	}
	return lease.Credential{ID: "c1", AccessKeyID: "AKIA"}, nil
}

func (w *world) Append(_ context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error) {
	if fence != audit.NoFence && w.stale > 0 {
		w.stale--
		w.sequence++
		return rec, audit.ErrStale
	}
	w.records = append(w.records, rec)
	return rec, nil
}

func issue(t *testing.T, w *world) (lease.Credential, error) {
	t.Helper()
	counter := delegation.New(delegation.Config{Directory: w, Rules: w, Leases: w, Trail: w, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	service := authn.Principal{Peer: authn.Peer{Kind: authn.Service, Name: "restorer"}}
	return counter.Issue(t.Context(), service, delegation.Request{Tenant: "acme", Grant: "nightly", Purpose: "ticket"})
}

// What changes between the decision and its record is decided again.
func TestDecidedAgain(t *testing.T) {
	w := &world{stale: 3}
	got, err := issue(t, w)
	if err != nil || got.ID != "c1" || len(w.records) != 1 || w.records[0].Event != string(audit.DelegationIssued) || w.records[0].CredentialID != "c1" {
		t.Errorf("%v, %v, recorded %+v", got, err, w.records)
	}
	// A refusal tells of no credential that was never given.
	w = &world{stale: 1, gone: reason.New(reason.GrantDisabled, "x")}
	got, err = issue(t, w)
	if !reason.Is(err, reason.GrantDisabled) || got.ID != "" || len(w.records) != 1 ||
		w.records[0].Event != string(audit.DelegationRefused) || w.records[0].CredentialID != "" || w.records[0].AccessKeyID != "" {
		t.Errorf("%v, %v, recorded %+v", got, err, w.records)
	}
	// A feed that never stands still is no reason to try without end.
	w = &world{stale: 1 << 30}
	got, err = issue(t, w)
	if !reason.Is(err, reason.StorageUnavailable) || got.ID != "" {
		t.Errorf("%v, %v", got, err)
	}
}
