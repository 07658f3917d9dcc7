package authn

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

func TestHashAndVerify(t *testing.T) {
	p := cheap(t, PasswordsConfig{})
	word := secret.New(password)
	one, err := p.Hash(t.Context(), word)
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Hash(t.Context(), word)
	if err != nil || one == two || strings.Contains(one, password) || !strings.HasPrefix(one, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Fatalf("%s and %s, %v", one, two, err)
	}
	for text, want := range map[string]bool{password: true, password + " ": false, "": false, strings.ToUpper(password): false} {
		if good, err := p.Verify(t.Context(), one, secret.New(text)); err != nil || good != want {
			t.Errorf("%q: %v, %v", text, good, err)
		}
	}
	if s := p.Stats(); s.Done != 6 || s.Running != 0 || s.Waiting != 0 || s.Usual <= 0 {
		t.Errorf("%+v", s)
	}
}

// A hash made by the reference implementation:
// printf password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32 -e
func TestVerifyForeignHash(t *testing.T) {
	const stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	p := cheap(t, PasswordsConfig{})
	if good, err := p.Verify(t.Context(), stored, secret.New("password")); err != nil || !good {
		t.Errorf("%v, %v", good, err)
	}
}

func TestDefaultParameters(t *testing.T) {
	p, err := NewPasswords(PasswordsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.want.String(); !strings.HasPrefix(got, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the default is %s", got)
	}
	if cap(p.permits) < 1 || p.queue != 32*cap(p.permits) {
		t.Errorf("%d permits, a queue of %d", cap(p.permits), p.queue)
	}
	for _, cfg := range []PasswordsConfig{{Memory: 1}, {Memory: 1 << 20}, {Passes: 17}, {Memory: 128 << 10, Passes: 16}} {
		if _, err := NewPasswords(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

var badHashes = []string{
	"", "x", "$", "$argon2id$", "plain-text",
	"$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$t=1,m=64,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=064,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=+64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=0$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=4,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=16,t=1,p=4$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=4294967297,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=99999999999999999999,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=4294967295,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=131072,t=16,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=255$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ=$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAB", // loose bits
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAA\nAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA$",
	"$argon2id$v=19$m=64,t=1,p=1$" + strings.Repeat("A", 88) + "$AAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 1<<20),
}

// A stored hash that would exhaust the broker, or that is not one, is refused
// before any work.
func TestBadStoredHashes(t *testing.T) {
	p := cheap(t, PasswordsConfig{})
	for _, stored := range badHashes {
		if good, err := p.Verify(t.Context(), stored, secret.New(password)); good || !errors.Is(err, errStoredHash) {
			t.Errorf("%.80q: %v, %v", stored, good, err)
		}
		if !p.NeedsRehash(stored) {
			t.Errorf("%.80q is as good as today's", stored)
		}
	}
	if done := p.Stats().Done; done != 0 {
		t.Errorf("%d hashes were computed", done)
	}
}

func FuzzStoredHash(f *testing.F) {
	for _, stored := range badHashes {
		f.Add(stored[:min(len(stored), 600)])
	}
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, stored string) {
		h, err := parseHash(stored)
		if err != nil {
			return
		}
		if h.String() != stored {
			t.Fatalf("%q is not canonical: %q", stored, h)
		}
		if h.memory > maxMemory || h.passes > maxPasses || h.lanes > maxLanes || h.memory*h.passes > maxWork ||
			len(h.salt) > maxSalt || len(h.hash) > maxHash || h.memory < 8*uint32(h.lanes) || h.passes < 1 || h.lanes < 1 {
			t.Fatalf("%q is out of bounds", stored)
		}
	})
}

func TestNeedsRehash(t *testing.T) {
	p, err := NewPasswords(PasswordsConfig{Memory: 128, Passes: 2})
	if err != nil {
		t.Fatal(err)
	}
	tail := "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for parameters, want := range map[string]bool{
		"m=128,t=2,p=1": false, "m=256,t=1,p=1": false, "m=256,t=2,p=1": false,
		"m=128,t=1,p=1": true, "m=64,t=2,p=1": true,
	} {
		if got := p.NeedsRehash("$argon2id$v=19$" + parameters + tail); got != want {
			t.Errorf("%s: %v", parameters, got)
		}
	}
	if !p.NeedsRehash("$argon2id$v=19$m=128,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA") {
		t.Error("a shorter hash is as good as today's")
	}
}

// The pool and its queue are bounded, and those beyond are told when to come
// back, each later than the one before.
func TestPoolSheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cheap(t, PasswordsConfig{Permits: 1, Queue: 2})
		p.usual = 2 * time.Second
		p.permits <- struct{}{} // a hash that is being computed
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- p.VerifyUnknown(t.Context(), secret.New(password)) }()
		}
		synctest.Wait()
		if s := p.Stats(); s.Running != 1 || s.Waiting != 2 {
			t.Fatalf("%+v", s)
		}
		var waits []time.Duration
		for range 60 {
			err := p.VerifyUnknown(t.Context(), secret.New(password))
			var e *reason.Error
			if !errors.As(err, &e) || e.Reason != reason.LoginBusy || !reason.Transient(err) {
				t.Fatalf("%v", err)
			}
			waits = append(waits, e.RetryAfter)
		}
		for i, wait := range waits {
			switch {
			case wait < shortestShed || wait > longestShed:
				t.Errorf("told to wait %s", wait)
			case i < 30 && wait != shortestShed+time.Duration(i)*2*time.Second && wait != longestShed:
				t.Errorf("turned away as number %d and told to wait %s", i, wait)
			}
		}
		if s := p.Stats(); s.Shed != 60 {
			t.Errorf("%+v", s)
		}
		<-p.permits
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if s := p.Stats(); s.Waiting != 0 || s.Running != 0 || s.Done != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// Who gives up while waiting leaves its place; a hash that has begun is
// finished whatever becomes of its caller.
func TestPoolAndContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := cheap(t, PasswordsConfig{Permits: 1, Queue: 1})
		p.permits <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Hash(ctx, secret.New(password)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if s := p.Stats(); s.Waiting != 0 || s.Shed != 0 {
			t.Errorf("%+v", s)
		}
		<-p.permits
		if _, err := p.Hash(ctx, secret.New(password)); err != nil {
			t.Errorf("with a permit at hand: %v", err)
		}
	})
}
