package lease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// ask calls Credential and wants an answer.
func (w *world) ask(h Holder, minLife time.Duration) Credential {
	w.t.Helper()
	c, err := w.m.Credential(context.Background(), h, "g1", minLife)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestCredentialFromMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		first := w.ask(h, 0)
		if first.SecretAccessKey.IsZero() {
			t.Error("no secret")
		}
		// A stream and calls share one lease.
		a := w.subscribe(1)
		after(time.Minute)
		if a.credential().ID != first.ID || w.ask(h, 0).ID != first.ID || w.ask(h, 30*time.Minute).ID != first.ID {
			t.Error("the credential in force was not given")
		}
		if s := w.m.Stats(); s.Calls != 1 || s.Warm != 2 || s.Subscriptions != 1 {
			t.Errorf("the state is %+v", s)
		}
		// The lease lingers for each caller anew, and then ends.
		a.sub.Close()
		for range 10 {
			after(100 * time.Second)
			if w.ask(h, 0).ID != first.ID {
				t.Fatal("the lease was lost")
			}
		}
		after(3 * time.Minute)
		if n := w.m.Stats().Leases; n != 0 {
			t.Errorf("%d leases", n)
		}
	})
}

// A caller with a wish gets what it wishes, but cannot have one credential
// issued after the other.
func TestCredentialWithMinLife(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		a := w.subscribe(1)
		after(20 * time.Second)
		_, err := w.m.Credential(t.Context(), h, "g1", hour+time.Second)
		wantReason(t, err, reason.InvalidRequest)
		_, err = w.m.Credential(t.Context(), h, "g1", hour)
		wantReason(t, err, reason.RateLimited)
		var e *reason.Error
		if errors.As(err, &e); e.RetryAfter != 40*time.Second {
			t.Errorf("retry after %s", e.RetryAfter)
		}
		after(40 * time.Second)
		c := w.ask(h, hour)
		if c.ID == a.credentials()[0].Credential.ID || time.Until(c.Expires) < hour {
			t.Errorf("got one until %s", c.Expires)
		}
		after(time.Second)
		a.want(2, 0, 0)
		after(20 * time.Minute)
		if w.ask(h, 30*time.Minute).ID != c.ID || w.ask(h, 45*time.Minute).ID == c.ID {
			t.Error("the wish was not kept")
		}
		// Without a lease, a wish that cannot be fulfilled is refused as well.
		_, err = w.m.Credential(t.Context(), holder(2), "g1", 2*hour)
		wantReason(t, err, reason.InvalidRequest)
		if n := w.sts.count(); n != 3 {
			t.Errorf("%d calls", n)
		}
		// A stream of the same agent whose certificate ends sooner bounds the
		// lease for all.
		short := h
		short.Certificate.NotAfter = time.Now().Add(30 * time.Minute)
		w.subscribeAs(1, short, "g1", nil)
		after(2 * time.Minute)
		_, err = w.m.Credential(t.Context(), h, "g1", 45*time.Minute)
		wantReason(t, err, reason.InvalidRequest)
	})
}

// The right is checked at each call, from memory or not.
func TestCredentialChecksEachCall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		first := w.ask(h, 0)
		// The change is in the authority, and the manager was not told yet.
		w.authority.deny("user:u1", reason.New(reason.UserDisabled, "disabled"))
		_, err := w.m.Credential(t.Context(), h, "g1", 0)
		wantReason(t, err, reason.UserDisabled)
		if n := len(w.trail.of(audit.CredentialRefused)); n != 1 {
			t.Errorf("%d refusals are recorded", n)
		}
		w.authority.deny("user:u1", nil)
		w.authority.revoke(first.ID)
		second := w.ask(h, 0)
		if second.ID == first.ID {
			t.Error("a revoked credential was given")
		}
		w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "new" })
		third := w.ask(h, 0)
		if third.ID == second.ID || third.PolicyHash != "new" {
			t.Error("a credential under old terms was given")
		}
		h.Certificate.NotAfter = time.Now().Add(20 * time.Minute)
		if c := w.ask(h, 0); c.Expires.After(h.Certificate.NotAfter) {
			t.Error("the credential outlives the caller's certificate")
		}
		h.Certificate.NotAfter = time.Now().Add(10 * time.Minute)
		_, err = w.m.Credential(t.Context(), h, "g1", 0)
		wantReason(t, err, reason.CertificateEndsTooSoon)
	})
}

// While no new credential can be had the last good one is given, unless the
// caller wants more of it.
func TestCredentialDuringOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		a := w.subscribe(1)
		after(time.Minute)
		w.sts.failing(errDown)
		after(50 * time.Minute)
		if w.ask(h, 0).ID != a.credential().ID {
			t.Error("not the last good one")
		}
		_, err := w.m.Credential(t.Context(), h, "g1", 20*time.Minute)
		wantReason(t, err, reason.STSUnavailable)
		var e *reason.Error
		if errors.As(err, &e); e.RetryAfter <= 0 {
			t.Error("it is not said when to come back")
		}
		after(20 * time.Minute)
		_, err = w.m.Credential(t.Context(), h, "g1", 0)
		wantReason(t, err, reason.STSUnavailable)
		_, err = w.m.Credential(t.Context(), holder(2), "g1", 0)
		wantReason(t, err, reason.STSUnavailable)
		// The right is gone in the meantime.
		w.authority.deny("agent:a1", reason.New(reason.AgentDisabled, "disabled"))
		_, err = w.m.Credential(t.Context(), h, "g1", 0)
		wantReason(t, err, reason.AgentDisabled)
	}, quietly)
}

// The right goes while the caller waits for a new credential.
func TestCredentialRefusedWhileWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		w.sts.set(func(s *fakeSTS) { s.latency = 10 * time.Second })
		after(42 * time.Minute)
		a.want(2, 0, 0)
		result := make(chan error, 1)
		go func() {
			_, err := w.m.Credential(context.Background(), holder(1), "g1", 59*time.Minute)
			result <- err
		}()
		after(time.Second)
		w.authority.deny("agent:a1", reason.New(reason.AgentDisabled, "disabled"))
		w.change(storage.KindAgent, "a1")
		wantReason(t, <-result, reason.AgentDisabled)
	})
}

// Revoking the single credential that a caller would have got is no answer to
// it: it waits for the next.
func TestCredentialRevokedWhileWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(2 * time.Minute)
		w.sts.set(func(s *fakeSTS) { s.latency = 10 * time.Second })
		result := make(chan Credential, 1)
		go func() { result <- w.ask(holder(1), 59*time.Minute) }()
		after(time.Second)
		w.change(storage.KindRevocation, w.authority.revoke(a.credential().ID))
		if c := <-result; c.ID == a.revocations()[0].Revoked.CredentialID {
			t.Error("the revoked one was given")
		}
	})
}

// A caller who gives up gets its context's error, and hurts nobody.
func TestCredentialCallerGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 10 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := w.m.Credential(ctx, holder(1), "g1", 0)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		after(6 * time.Second)
		// The call went on, and the next caller has the result.
		w.ask(holder(1), 0)
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// A thousand callers at once cost one call.
func TestCredentialSingleFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = time.Second })
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { w.ask(holder(1), 0) })
		}
		all.Wait()
		if n := w.sts.count(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestCredentialWhenStopping(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = 5 * time.Second })
		flying, queued := make(chan error, 1), make(chan error, 1)
		ask := func(n int, to chan error) {
			_, err := w.m.Credential(context.Background(), holder(n), "g1", 0)
			to <- err
		}
		go ask(1, flying)
		after(time.Second)
		go ask(2, queued)
		synctest.Wait()
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		wantReason(t, <-queued, reason.Draining)
		if err := <-flying; err != nil {
			t.Errorf("the call in flight was not waited for: %v", err)
		}
		// From memory there still is an answer.
		w.ask(holder(1), 0)
		_, err := w.m.Credential(context.Background(), holder(3), "g1", 0)
		wantReason(t, err, reason.Draining)
	}, withMaxCalls(1))
}

// The drain ends before the call does.
func TestCredentialCutOffWhenStopping(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.set(func(s *fakeSTS) { s.latency = hour })
		result := make(chan error, 1)
		go func() {
			_, err := w.m.Credential(context.Background(), holder(1), "g1", 0)
			result <- err
		}()
		after(time.Second)
		if err := w.stop(); err == nil {
			t.Error("nothing is said of the call that was cut off")
		}
		wantReason(t, <-result, reason.Draining)
	})
}
