package authn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

func openKeyring(t testing.TB, keys *keyStore, sealing string) (*Keyring, error) {
	t.Helper()
	return OpenKeyring(t.Context(), KeyringConfig{Keys: keys, Sealer: testSealer(t, sealing), Log: testLog(t)})
}

func TestKeyringsShareOneKey(t *testing.T) {
	keys := &keyStore{}
	ids := make([]string, 8)
	var wait sync.WaitGroup
	for i := range ids {
		wait.Go(func() {
			k, err := openKeyring(t, keys, "k")
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.signing().id
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("replicas that started together sign with %v", ids)
		}
	}
	if stored, _ := keys.count(); stored != 1 {
		t.Errorf("%d keys are stored", stored)
	}
	if bytes.Contains(keys.keys[0].Sealed, []byte(must(openKeyring(t, keys, "k")).signing().value.Reveal())) {
		t.Error("the key is stored in clear")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestOpenKeyringFails(t *testing.T) {
	if _, err := OpenKeyring(t.Context(), KeyringConfig{}); err == nil {
		t.Error("opened without storage")
	}
	if _, err := openKeyring(t, &keyStore{fail: storage.ErrUnavailable}, "k"); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	keys := &keyStore{}
	must(openKeyring(t, keys, "k"))
	if _, err := openKeyring(t, keys, "o"); err == nil || !strings.Contains(err.Error(), "sealing key") {
		t.Errorf("%v", err)
	}
	// A key in the row of another is not opened.
	keys.keys[0].ID = newID()
	if _, err := openKeyring(t, keys, "k"); err == nil {
		t.Error("a key was moved to another id")
	}
	// A key of a wrong size is none.
	id := newID()
	keys.keys[0] = storage.SealedKey{Meta: storage.Meta{ID: id}, Purpose: TokenPurpose, Sealed: testSealer(t, "k").Seal(SealPurpose(id), []byte("short"))}
	if _, err := openKeyring(t, keys, "k"); err == nil {
		t.Error("a short key was taken")
	}
}

func TestRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &keyStore{}
		k := must(openKeyring(t, keys, "k"))
		other := must(openKeyring(t, keys, "k"))
		old := k.signing()
		if err := k.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		fresh := k.signing()
		if fresh.id == old.id || fresh.value.Equal(old.value) {
			t.Fatal("the key did not change")
		}
		// The other replica is told, or finds out at the first token.
		if _, err := other.verifying(t.Context(), fresh.id); err != nil || other.signing().id != fresh.id {
			t.Errorf("%v", err)
		}
		// The old key verifies as long as its tokens can last, no longer.
		pass(DefaultSessionLifetime - time.Second)
		if _, err := k.verifying(t.Context(), old.id); err != nil {
			t.Errorf("%v", err)
		}
		pass(time.Second)
		if _, err := k.verifying(t.Context(), old.id); !errors.Is(err, errUnknownKey) {
			t.Errorf("%v", err)
		}
		if err := k.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stored, _ := keys.count(); stored != 1 {
			t.Errorf("%d keys are stored", stored)
		}
		if err := other.sweep(t.Context()); err != nil {
			t.Errorf("already swept by another replica: %v", err)
		}
	})
}

// Two replicas that rotate at once make one new key.
func TestRotateAtOnce(t *testing.T) {
	keys := &keyStore{}
	a, b := must(openKeyring(t, keys, "k")), must(openKeyring(t, keys, "k"))
	if err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stored, _ := keys.count(); stored != 2 || a.signing().id != b.signing().id {
		t.Errorf("%d keys", stored)
	}
}

func TestReplace(t *testing.T) {
	keys := &keyStore{}
	k := must(openKeyring(t, keys, "k"))
	old := k.signing().id
	if err := k.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotated := k.signing().id
	if err := k.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{old, rotated} {
		if _, err := k.verifying(t.Context(), id); !errors.Is(err, errUnknownKey) {
			t.Errorf("%v", err)
		}
	}
	if stored, _ := keys.count(); stored != 1 {
		t.Errorf("%d keys are stored", stored)
	}
	keys.change(func() { keys.fail = storage.ErrUnavailable })
	for name, act := range map[string]func(context.Context) error{"Replace": k.Replace, "Rotate": k.Rotate, "Refresh": k.Refresh} {
		before := k.signing().id
		if err := act(t.Context()); !errors.Is(err, storage.ErrUnavailable) || k.signing().id != before {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Anybody can make up key ids: they cost storage at most one read a second.
func TestUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &keyStore{}
		k := must(openKeyring(t, keys, "k"))
		_, before := keys.count()
		for range 1000 {
			if _, err := k.verifying(t.Context(), newID()); !errors.Is(err, errUnknownKey) {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"", "x", strings.Repeat("x", 36), "../" + newID()} {
			if _, err := k.verifying(t.Context(), id); !errors.Is(err, errUnknownKey) {
				t.Fatal(err)
			}
		}
		if _, lists := keys.count(); lists != before+1 {
			t.Errorf("%d reads", lists-before)
		}
		pass(missPause)
		keys.change(func() { keys.fail = storage.ErrUnavailable })
		for range 3 {
			if _, err := k.verifying(t.Context(), newID()); !errors.Is(err, storage.ErrUnavailable) {
				t.Fatalf("a key that may exist: %v", err)
			}
		}
		if _, lists := keys.count(); lists != before+2 {
			t.Errorf("%d reads", lists-before)
		}
		if _, err := k.verifying(t.Context(), k.signing().id); err != nil {
			t.Errorf("a known key needs no storage: %v", err)
		}
		// A caller that gives up must not be taken for a failure of storage.
		pass(missPause)
		keys.change(func() { keys.fail = nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.verifying(ctx, newID()); !errors.Is(err, errUnknownKey) {
			t.Errorf("%v", err)
		}
	})
}

func TestKeyringRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &keyStore{}
		k := must(openKeyring(t, keys, "k"))
		first := k.signing().id
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- k.Run(ctx) }()

		// Another replica rotates, and the change feed tells.
		if err := must(openKeyring(t, keys, "k")).Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.Changed([]storage.Change{{Kind: storage.KindUser}})
		synctest.Wait()
		if k.signing().id != first {
			t.Fatal("a user's change made it read the keys")
		}
		// Storage is away when the change is told: it is tried again.
		keys.change(func() { keys.fail = storage.ErrUnavailable })
		for range 3 {
			k.Changed([]storage.Change{{Kind: storage.KindUser}, {Kind: storage.KindSealedKey}})
		}
		synctest.Wait()
		if k.signing().id != first {
			t.Fatal("read without storage")
		}
		keys.change(func() { keys.fail = nil })
		pass(keyringTick)
		synctest.Wait()
		second := k.signing().id
		if second == first {
			t.Fatal("the change was lost")
		}
		// The old key is removed once its tokens are dead.
		pass(DefaultSessionLifetime + keyringTick)
		synctest.Wait()
		if stored, _ := keys.count(); stored != 1 {
			t.Errorf("%d keys are stored", stored)
		}
		// It rotates by itself, through a failure too.
		keys.change(func() { keys.fail = storage.ErrUnavailable })
		pass(DefaultRotation)
		keys.change(func() { keys.fail = nil })
		pass(keyringTick)
		synctest.Wait()
		if k.signing().id == second {
			t.Error("it did not rotate")
		}
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// A retired key that cannot be opened costs its tokens, not the broker.
func TestRetiredKeyThatCannotBeOpened(t *testing.T) {
	keys := &keyStore{}
	k := must(openKeyring(t, keys, "k"))
	if err := k.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys.change(func() { keys.keys[1].Sealed = []byte("garbage") })
	if err := k.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	keys.change(func() { keys.keys[0].RetiredAt = time.Now() })
	if err := k.Refresh(t.Context()); err == nil {
		t.Error("no key is in use, and nobody noticed")
	}
	// All are retired: a start makes a new one.
	if _, err := openKeyring(t, keys, "k"); err != nil {
		t.Error(err)
	}
}

func TestKeyringIsNotPrinted(t *testing.T) {
	k := must(openKeyring(t, &keyStore{}, "k"))
	value := k.signing().value.Reveal()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "keyring", k, "ring", k.ring.Load(), "key", k.signing())
	printed := fmt.Sprintf("%v %+v %#v %+v", k, k, k.signing(), k.ring.Load()) + log.String()
	if strings.Contains(printed, value) || strings.Contains(printed, fmt.Sprintf("%x", value)) {
		t.Error("the key was printed")
	}
}
