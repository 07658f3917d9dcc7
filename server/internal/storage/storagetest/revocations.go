package storagetest

import (
	"slices"
	"testing"

	"github.com/stokerd/stoker/server/internal/storage"
)

var revocationCases = map[string]func(*testing.T, Opener){
	"Lifecycle": one(testRevocations),
	"List":      one(testListRevocations),
}

func revocation(t *testing.T) storage.Revocation {
	return storage.Revocation{Meta: newMeta(t), TargetKind: "agent", TargetID: newID(t), TargetName: "laptop@acme",
		TenantID: newID(t), Account: "main", SessionName: "s-1", Before: moment(0), Until: moment(60),
		State: storage.RevocationPending, Reason: "stolen", Operator: "spiffe://example.com/operator/o"}
}

func testRevocations(t *testing.T, s storage.Store) {
	ctx := t.Context()
	given := revocation(t)
	var stored storage.Revocation
	told(t, s, func() { stored = must[storage.Revocation](t)(s.CreateRevocation(ctx, given)) },
		storage.Change{Kind: storage.KindRevocation, ID: given.ID})
	want := given
	want.Meta, want.Before, want.Until = stored.Meta, kept(given.Before), kept(given.Until)
	same(t, "stored", stored, want)
	same(t, "read", must[storage.Revocation](t)(s.GetRevocation(ctx, given.ID)), stored)

	changed := stored
	changed.State, changed.Problem, changed.Until = storage.RevocationFailed, "AccessDenied", moment(90)
	var updated storage.Revocation
	told(t, s, func() { updated = must[storage.Revocation](t)(s.UpdateRevocation(ctx, changed)) },
		storage.Change{Kind: storage.KindRevocation, ID: given.ID})
	changed.Revision, changed.UpdatedAt, changed.Until = 2, updated.UpdatedAt, kept(moment(90))
	same(t, "updated", updated, changed)
	same(t, "read", must[storage.Revocation](t)(s.GetRevocation(ctx, given.ID)), updated)
	told(t, s, func() {
		_, err := s.UpdateRevocation(ctx, stored)
		wantError(t, err, storage.ErrConflict)
		unknown := updated
		unknown.ID = newID(t)
		_, err = s.UpdateRevocation(ctx, unknown)
		wantError(t, err, storage.ErrNotFound)
		_, err = s.GetRevocation(ctx, unknown.ID)
		wantError(t, err, storage.ErrNotFound)
		_, err = s.CreateRevocation(ctx, given)
		wantError(t, err, storage.ErrExists)
		moved := updated
		moved.TargetID = newID(t)
		_, err = s.UpdateRevocation(ctx, moved)
		wantError(t, err, storage.ErrInvalid)
		stateless := revocation(t)
		stateless.State = ""
		_, err = s.CreateRevocation(ctx, stateless)
		wantError(t, err, storage.ErrInvalid)
	})
}

func testListRevocations(t *testing.T, s storage.Store) {
	ctx := t.Context()
	var all, live []string
	for i := range 7 {
		r := revocation(t)
		if i%3 == 1 {
			r.State = storage.RevocationExpired
		} else {
			live = append(live, r.ID)
		}
		all = append(all, r.ID)
		must[storage.Revocation](t)(s.CreateRevocation(ctx, r))
	}
	slices.Reverse(all)
	slices.Reverse(live)
	for _, c := range []struct {
		all  bool
		want []string
	}{{true, all}, {false, live}} {
		for limit := 1; limit <= 8; limit++ {
			var got []string
			for after := ""; ; {
				page := must[[]storage.Revocation](t)(s.ListRevocations(ctx, c.all, storage.Page{After: after, Limit: limit}))
				for _, r := range page {
					after = r.ID
					got = append(got, r.ID)
				}
				if len(page) < limit {
					break
				}
			}
			same(t, "newest first", got, c.want)
		}
	}
	_, err := s.ListRevocations(ctx, true, storage.Page{})
	wantError(t, err, storage.ErrInvalid)
}
