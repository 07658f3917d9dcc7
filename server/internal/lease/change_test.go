package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Whatever takes the right away ends the supply at once, with its reason; when
// it is given back the supply goes on without a reconnect.
func TestChangeTakesTheRightAway(t *testing.T) {
	for what, c := range map[string]struct {
		deny   string
		kind   storage.Kind
		id     string
		reason reason.Reason
	}{
		"tenant":      {"tenant:t1", storage.KindTenant, "t1", reason.TenantDisabled},
		"user":        {"user:u1", storage.KindUser, "u1", reason.UserDisabled},
		"agent":       {"agent:a1", storage.KindAgent, "a1", reason.AgentDisabled},
		"grant":       {"grant:g1", storage.KindGrant, "g1", reason.GrantDeleted},
		"session":     {"session:s1", storage.KindSession, "s1", reason.SessionEnded},
		"certificate": {"serial:3e9", storage.KindCertificate, "cert-1", reason.CertificateRevoked},
		"revocation":  {"user:u1", storage.KindRevocation, "rev-1", reason.CredentialRevoked},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.authority.serials["cert-1"] = "3e9"
				w.authority.revocations["rev-1"] = storage.Revocation{TargetKind: "user", TargetID: "u1"}
				a := w.subscribe(1)
				after(time.Minute)
				w.authority.deny(c.deny, reason.New(c.reason, "no more"))
				w.change(c.kind, c.id)
				a.want(1, 0, 1) // before Changed returns
				r := a.revocations()[0].Revoked
				wantReason(t, r.Err, c.reason)
				if r.GrantID != "g1" || r.Grant != "grant-g1" || r.CredentialID != "" {
					t.Errorf("told %+v", r)
				}
				w.change(c.kind, c.id)
				after(2 * hour)
				a.want(1, 0, 1)
				if w.sts.count() != 1 {
					t.Errorf("%d calls", w.sts.count())
				}
				if recs := w.trail.of(audit.CredentialRevoked); len(recs) != 1 || recs[0].CredentialID != a.credential().ID || recs[0].Reason != string(c.reason) {
					t.Errorf("recorded %+v", recs)
				}
				w.authority.deny(c.deny, nil)
				w.change(c.kind, c.id)
				after(time.Second)
				a.want(2, 0, 1)
			})
		})
	}
}

// A change concerns those it concerns, and costs nothing for the others.
func TestChangeCostsWhatItConcerns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.addGrant("g3", "other", hour)
		for i := range 300 {
			h := holder(i)
			h.TenantID = fmt.Sprintf("t%d", i%100)
			h.UserID = fmt.Sprintf("u%d", i)
			w.subscribeAs(i, h, "g1", nil)
		}
		w.subscribeAs(1000, holder(1000), "g3", nil)
		after(time.Minute)
		w.authority.serials["cert-7"] = fmt.Sprintf("%x", 1007)
		for _, c := range []struct {
			kind storage.Kind
			id   string
			want int
		}{
			{storage.KindTenant, "t5", 3}, {storage.KindUser, "u7", 1}, {storage.KindAgent, "a9", 1}, {storage.KindGrant, "g3", 1},
			{storage.KindLocation, "loc-other", 1}, {storage.KindSession, "s4", 1}, {storage.KindCertificate, "cert-7", 1},
			{storage.KindCertificate, "just issued", 0}, {storage.KindSealedKey, "k", 0}, {storage.KindSealedKey, "", 0}, {storage.KindTenant, "", 0},
			{storage.KindRevocation, "lifted", 0},
		} {
			before := w.authority.entitled
			w.change(c.kind, c.id)
			if n := w.authority.entitled - before; n != c.want {
				t.Errorf("a change of %s %s asked the authority %d times, want %d", c.kind, c.id, n, c.want)
			}
		}
	}, withAccount("other", newSTS()))
}

// Other terms of the grant bring a credential under them at once, ahead of
// early renewals, and nothing else.
func TestChangeOfTerms(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Entitlement)
		kind   storage.Kind
		id     string
	}{
		"policy":   {func(e *Entitlement) { e.PolicyHash = "new" }, storage.KindGrant, "g1"},
		"endpoint": {func(e *Entitlement) { e.Location.Endpoint = "https://s3.example.com" }, storage.KindLocation, "loc-main"},
		"account":  {func(e *Entitlement) { e.Account = "other" }, storage.KindLocation, "loc-main"},
	} {
		t.Run(name, func(t *testing.T) {
			other := newSTS()
			inBubble(t, func(t *testing.T, w *world) {
				a := w.subscribe(1)
				after(time.Minute)
				w.authority.alter("g1", c.change)
				w.change(c.kind, c.id)
				after(100 * time.Millisecond)
				a.want(2, 0, 0)
				if n := w.sts.count() + other.count(); n != 2 || name == "account" && other.count() != 1 {
					t.Errorf("%d calls, %d to the other account", n, other.count())
				}
				// What changes nothing for the agent costs nothing.
				w.authority.alter("g1", func(e *Entitlement) { e.Grant.Name = "other-name" })
				w.change(storage.KindGrant, "g1")
				after(time.Minute)
				a.want(2, 0, 0)
			}, withAccount("other", other))
		})
	}
}

// The terms change and change back before anything was issued.
func TestChangeAndBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		w.sts.failing(errDown)
		w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "new" })
		w.change(storage.KindGrant, "g1")
		after(10 * time.Second)
		a.want(1, 1, 0)
		w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "hash-g1" })
		w.change(storage.KindGrant, "g1")
		w.sts.failing(nil)
		after(10 * time.Minute)
		a.want(1, 1, 0)
		// A stream that comes now gets the credential, which is good again.
		b := w.subscribe(1)
		b.want(1, 0, 0)
	}, quietly)
}

// A single revoked credential is taken from those who have it, and replaced.
func TestSingleCredentialRevoked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b, other := w.subscribe(1), w.subscribe(1), w.subscribe(2)
		after(time.Minute)
		old := a.credential().ID
		w.change(storage.KindRevocation, w.authority.revoke(old))
		for _, s := range []*agent{a, b} {
			s.want(1, 0, 1)
			r := s.revocations()[0].Revoked
			wantReason(t, r.Err, reason.CredentialRevoked)
			if r.CredentialID != old {
				t.Errorf("told of %q", r.CredentialID)
			}
		}
		after(time.Second)
		a.want(2, 0, 1)
		b.want(2, 0, 1)
		other.want(1, 0, 0)
		if a.credential().ID == old {
			t.Error("the revoked credential came again")
		}
		if n := len(w.trail.of(audit.CredentialRevoked)); n != 2 {
			t.Errorf("%d losses are recorded", n)
		}
		// A revocation whose target is of no kind that is known.
		w.authority.revocations["odd"] = storage.Revocation{TargetKind: "planet", TargetID: "mars"}
		w.change(storage.KindRevocation, "odd")
	})
}

// A revocation is lifted: nobody knows any more whom it concerned.
func TestRevocationLifted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.deny("agent:a1", reason.New(reason.CredentialRevoked, "revoked"))
		a, other := w.subscribe(1), w.subscribe(2)
		after(time.Second)
		a.want(0, 1, 0)
		w.authority.deny("agent:a1", nil)
		w.change(storage.KindRevocation, "gone")
		after(time.Second)
		a.want(1, 1, 0)
		other.want(1, 0, 0)
	})
}

// Thousands of streams lose their right: the last is told before Changed
// returns.
func TestRevokeThousands(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents = 3_000
		for i := range agents {
			h := holder(i)
			w.m.Subscribe(h, "g1", nil, deaf{})
		}
		after(2 * time.Minute)
		w.authority.deny("tenant:t1", reason.New(reason.TenantDisabled, "disabled"))
		w.change(storage.KindTenant, "t1")
		if s := w.m.Stats(); s.Emptiest != 0 || s.HasCredential || s.Dry != 0 {
			t.Errorf("somebody is still entitled: %+v", s)
		}
		after(10 * time.Second)
		if n := len(w.trail.of(audit.CredentialRevoked)); n != agents {
			t.Errorf("%d losses are recorded", n)
		}
	}, withRate(1000))
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Deliver(Event) {}

// A permanent refusal by STS is told once, recorded once, and not tried again
// until something changes.
func TestPermanentUntilChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.failing(errDenied)
		a := w.subscribe(1)
		after(24 * hour)
		a.want(0, 1, 0)
		p := a.problems()[0].Problem
		wantReason(t, p.Err, reason.STSRefused)
		if !p.RetryAt.IsZero() || !p.GoodUntil.IsZero() || w.sts.count() != 1 {
			t.Errorf("told %+v after %d calls", p, w.sts.count())
		}
		recs := w.trail.of(audit.CredentialRefused)
		if len(recs) != 1 || recs[0].Reason != "STS_REFUSED" || recs[0].Account != "main" || recs[0].SessionName == "" {
			t.Errorf("recorded %+v", recs)
		}
		w.sts.failing(nil)
		w.change(storage.KindLocation, "loc-main")
		after(time.Second)
		a.want(1, 1, 0)
	})
}

// A permanent refusal of a renewal: the last good credential stays, its end is
// told, and Recheck tries again.
func TestPermanentAtRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		w.sts.failing(errDenied)
		after(50 * time.Minute)
		a.want(1, 1, 0)
		if p := a.problems()[0].Problem; !p.GoodUntil.Equal(a.credential().Expires) {
			t.Errorf("told %+v", p)
		}
		after(hour)
		a.want(1, 2, 0)
		if w.sts.count() != 2 {
			t.Errorf("%d calls", w.sts.count())
		}
		w.sts.failing(nil)
		w.m.Recheck()
		after(time.Second)
		a.want(2, 2, 0)
	})
}

// Reconnects do not turn a permanent refusal into a storm of calls; after the
// cool-down a new subscription tries again, and at once if the terms are new.
func TestReconnectLoopAfterPermanent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sts.failing(errDenied)
		for range 300 {
			a := w.subscribe(1)
			after(time.Second)
			a.want(0, 1, 0)
			wantReason(t, a.problems()[0].Problem.Err, reason.STSRefused)
			a.sub.Close()
		}
		if n := w.sts.count(); n < 4 || n > 6 {
			t.Errorf("%d calls in five minutes", n)
		}
		after(3 * time.Minute)
		w.subscribe(1).sub.Close()
		after(time.Second)
		b := w.subscribe(1)
		after(time.Second)
		b.sub.Close()
		w.sts.failing(nil)
		c := w.subscribe(1)
		after(time.Second)
		c.want(0, 1, 0)
		c.sub.Close()
		w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "new" })
		d := w.subscribe(1)
		after(time.Second)
		d.want(1, 0, 0)
	})
}

// Something changes while STS is refusing: the refusal is of the old state.
func TestChangeDuringRefusal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		n := 0
		w.sts.set(func(s *fakeSTS) {
			s.latency = time.Second
			s.fail = func(context.Context, issuer.Request) error {
				if n++; n == 1 {
					w.change(storage.KindGrant, "g1")
					return errDenied
				}
				return nil
			}
		})
		a := w.subscribe(1)
		after(5 * time.Second)
		a.want(1, 0, 0)
	})
}

// What the authority refuses is recorded first and told then; if it cannot be
// recorded it is told all the same, and logged.
func TestRefusalIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.deny("grant:g1", reason.New(reason.GrantDisabled, "disabled"))
		a := &agent{t: t, w: w}
		a.check = func(Event) {
			if len(w.trail.of(audit.CredentialRefused)) == 0 {
				t.Error("told before it was recorded")
			}
		}
		w.m.Subscribe(holder(1), "g1", nil, a)
		after(time.Second)
		a.want(0, 1, 0)
		w.trail.set(func(f *fakeTrail) { f.down = errDiskFull })
		b := w.subscribe(2)
		after(time.Second)
		b.want(0, 1, 0)
		if n := w.m.Stats().Unwritten; n != 1 {
			t.Errorf("%d unwritten records", n)
		}
	}, quietly)
}

// The refusal is overtaken by a change before it is told.
func TestRefusalOvertaken(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.deny("grant:g1", reason.New(reason.GrantDisabled, "disabled"))
		w.trail.set(func(f *fakeTrail) {
			f.onAppend = func(rec storage.AuditRecord) {
				if rec.Event == string(audit.CredentialRefused) {
					pass(time.Second)
				}
			}
		})
		a := w.subscribe(1)
		w.authority.deny("grant:g1", nil)
		w.change(storage.KindGrant, "g1")
		after(2 * time.Second)
		a.want(1, 0, 0)
	})
}

// Of two streams of one lease one loses its session: the other is supplied on.
func TestOneOfTwoStreamsLosesItsRight(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		h := holder(1)
		h.SessionID = "s-other"
		b := w.subscribeAs(2, h, "g1", nil)
		after(time.Minute)
		w.authority.deny("session:s1", reason.New(reason.SessionEnded, "ended"))
		w.change(storage.KindSession, "s1")
		after(hour)
		a.want(1, 0, 1)
		if len(b.credentials()) < 2 || len(b.events) != len(b.credentials()) {
			t.Errorf("the other stream:%s", b.story())
		}
	})
}

// The authority does not know for a while: nothing is given or taken away.
func TestAuthorityUnsure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		w.authority.deny("tenant:t1", reason.New(reason.StorageUnavailable, "behind"))
		w.change(storage.KindTenant, "t1")
		b := w.subscribe(2)
		after(time.Minute)
		a.want(1, 0, 0)
		b.want(0, len(b.problems()), 0)
		wantReason(t, b.problems()[0].Problem.Err, reason.StorageUnavailable)
		after(50 * time.Minute)
		if len(a.problems()) == 0 {
			t.Error("the missing renewal was not told")
		}
		if w.sts.count() != 1 {
			t.Errorf("%d calls", w.sts.count())
		}
		w.authority.deny("tenant:t1", nil)
		after(2 * time.Minute)
		a.want(2, len(a.problems()), 0)
		b.want(1, len(b.problems()), 0)
	})
}
