package storagetest

import (
	"errors"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var keyCases = map[string]func(*testing.T, Opener){
	"AddKey":  one(testAddKey),
	"KeyRace": one(testAddKeyRace),
	"Reseal":  one(testResealKeys),
}

func sealedKey(t *testing.T, purpose string) storage.SealedKey {
	return storage.SealedKey{Meta: newMeta(t), Purpose: purpose, Sealed: []byte{0, 0xff, 1}, Public: []byte("-----BEGIN")}
}

func testAddKey(t *testing.T, s storage.Store) {
	ctx := t.Context()
	given := sealedKey(t, "token")
	var first storage.SealedKey
	told(t, s, func() { first = must[storage.SealedKey](t)(s.AddKey(ctx, given, "")) },
		storage.Change{Kind: storage.KindSealedKey, ID: given.ID})
	want := given
	want.Meta = first.Meta
	same(t, "added", first, want)
	if first.Revision != 1 || first.CreatedAt.IsZero() {
		t.Errorf("meta is %+v", first.Meta)
	}

	told(t, s, func() { // somebody else was first, or the key moved on
		_, err := s.AddKey(ctx, sealedKey(t, "token"), "")
		wantError(t, err, storage.ErrConflict)
		_, err = s.AddKey(ctx, sealedKey(t, "token"), newID(t))
		wantError(t, err, storage.ErrConflict)
		_, err = s.AddKey(ctx, sealedKey(t, "audit"), first.ID)
		wantError(t, err, storage.ErrConflict)
		retired := sealedKey(t, "audit")
		retired.RetiredAt = time.Now()
		_, err = s.AddKey(ctx, retired, "")
		wantError(t, err, storage.ErrInvalid)
		again := sealedKey(t, "token")
		again.ID = first.ID
		_, err = s.AddKey(ctx, again, first.ID)
		wantError(t, err, storage.ErrExists)
	})
	other := must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "audit"), "")) // purposes are apart

	second := sealedKey(t, "token")
	told(t, s, func() { second = must[storage.SealedKey](t)(s.AddKey(ctx, second, first.ID)) },
		storage.Change{Kind: storage.KindSealedKey, ID: first.ID}, storage.Change{Kind: storage.KindSealedKey, ID: second.ID})
	keys := must[[]storage.SealedKey](t)(s.ListKeys(ctx, "token"))
	if len(keys) != 2 {
		t.Fatalf("keys: %+v", keys)
	}
	same(t, "newest first", keys[0], second)
	retired := first
	retired.Revision, retired.UpdatedAt, retired.RetiredAt = 2, keys[1].UpdatedAt, keys[1].RetiredAt
	same(t, "retired", keys[1], retired)
	if retired.RetiredAt.IsZero() || retired.RetiredAt.After(time.Now()) {
		t.Errorf("retired at %v", retired.RetiredAt)
	}
	same(t, "of the other purpose", must[[]storage.SealedKey](t)(s.ListKeys(ctx, "audit")), []storage.SealedKey{other})
	all := must[[]storage.SealedKey](t)(s.ListKeys(ctx, ""))
	if len(all) != 3 || all[2].ID != first.ID {
		t.Errorf("keys of every purpose: %v", all)
	}
	if none := must[[]storage.SealedKey](t)(s.ListKeys(ctx, "none")); len(none) != 0 {
		t.Errorf("keys of no purpose: %v", none)
	}

	told(t, s, func() { noError(t, s.DeleteKey(ctx, first.ID)) },
		storage.Change{Kind: storage.KindSealedKey, ID: first.ID})
	wantError(t, s.DeleteKey(ctx, first.ID), storage.ErrNotFound)
	same(t, "left", must[[]storage.SealedKey](t)(s.ListKeys(ctx, "token")), []storage.SealedKey{second})
	// With the last one deleted none is in use, and the next replaces none.
	noError(t, s.DeleteKey(ctx, second.ID))
	must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), ""))
}

func testAddKeyRace(t *testing.T, s storage.Store) {
	replaces := ""
	for range 3 {
		ids := make([]string, 8)
		errs := race(len(ids), func(i int) error {
			k, err := s.AddKey(t.Context(), sealedKey(t, "token"), replaces)
			ids[i] = k.ID
			return err
		})
		oneWinner(t, errs, storage.ErrConflict)
		for i, err := range errs {
			if err == nil {
				replaces = ids[i]
			}
		}
		keys := must[[]storage.SealedKey](t)(s.ListKeys(t.Context(), "token"))
		for _, k := range keys {
			if k.RetiredAt.IsZero() != (k.ID == replaces) {
				t.Errorf("the winner is %s, but %s was retired at %v", replaces, k.ID, k.RetiredAt)
			}
		}
	}
}

func testResealKeys(t *testing.T, s storage.Store) {
	ctx := t.Context()
	first := must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), ""))
	second := must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "token"), first.ID)) // which retires the first
	other := must[storage.SealedKey](t)(s.AddKey(ctx, sealedKey(t, "audit"), ""))
	all := func() []storage.SealedKey {
		return append(must[[]storage.SealedKey](t)(s.ListKeys(ctx, "token")), must[[]storage.SealedKey](t)(s.ListKeys(ctx, "audit"))...)
	}
	before := all()

	failure := errors.New("no")
	asked := 0
	told(t, s, func() {
		err := s.ResealKeys(ctx, func(storage.SealedKey) ([]byte, error) {
			if asked++; asked == 3 {
				return nil, failure
			}
			return []byte("half"), nil
		})
		wantError(t, err, failure)
	})
	same(t, "after a failure", all(), before)

	told(t, s, func() {
		noError(t, s.ResealKeys(ctx, func(k storage.SealedKey) ([]byte, error) { return []byte("new " + k.ID), nil }))
	}, storage.Change{Kind: storage.KindSealedKey, ID: first.ID}, storage.Change{Kind: storage.KindSealedKey, ID: second.ID},
		storage.Change{Kind: storage.KindSealedKey, ID: other.ID})
	for i, k := range all() {
		want := before[i]
		want.Sealed, want.Revision, want.UpdatedAt = []byte("new "+k.ID), before[i].Revision+1, k.UpdatedAt
		same(t, "resealed", k, want)
	}
}
