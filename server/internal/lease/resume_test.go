package lease

import (
	"context"
	"testing"
	"time"
)

// A restart costs no call to STS for agents that hold valid credentials, and
// they are renewed when they would have been.
func TestRestartCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents = 500
		all := make([]*agent, agents)
		held := make([]*Held, agents)
		renewal := make([]time.Time, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(15 * time.Minute)
		for i, a := range all {
			held[i] = &Held{ID: a.credential().ID, Expires: a.credential().Expires}
			renewal[i] = a.credential().IssuedAt.Add(time.Duration(renewalPoint(held[i].ID) * float64(hour)))
		}
		calls := w.sts.count()
		w.trail.set(func(f *fakeTrail) { f.slow = 10 * time.Millisecond })
		w.restart()
		for i := range all {
			all[i] = w.subscribeAs(i, holder(i), "g1", held[i])
		}
		after(time.Minute)
		if n := w.sts.count() - calls; n != 0 {
			t.Errorf("the restart cost %d calls", n)
		}
		if w.trail.most > defaultLookups {
			t.Errorf("%d look-ups at once", w.trail.most)
		}
		if s := w.m.Stats(); s.Resumed != agents || s.NotResumed != 0 || s.Dry != 0 {
			t.Errorf("the state is %+v", s)
		}
		after(30 * time.Minute)
		for i, a := range all {
			a.want(1, 0, 0)
			if off := a.credentials()[0].at.Sub(renewal[i]).Abs(); off > 2*time.Second {
				t.Errorf("agent %d was renewed %s off its time", i, off)
			}
		}
	}, quietly)
}

// A held credential is refused in each of these cases, and a new one is issued
// at once.
func TestHeldIsNotAccepted(t *testing.T) {
	hours := func(n float64) time.Duration { return time.Duration(n * float64(hour)) }
	for name, spoil := range map[string]func(w *world, h *Holder, grant *string, held *Held){
		"unknown id": func(_ *world, _ *Holder, _ *string, held *Held) { held.ID = "00000000-0000-7000-8000-000000000000" },
		"id of a refusal": func(w *world, _ *Holder, _ *string, _ *Held) {
			rec := w.trail.records[0]
			rec.Event = "credential.rejected"
			w.trail.wrong = &rec
		},
		"record of another": func(w *world, _ *Holder, _ *string, _ *Held) {
			rec := w.trail.records[0]
			rec.CredentialID = "another"
			w.trail.wrong = &rec
		},
		"another agent":  func(_ *world, h *Holder, _ *string, _ *Held) { h.AgentID = "a2" },
		"another user":   func(_ *world, h *Holder, _ *string, _ *Held) { h.UserID = "u2" },
		"another tenant": func(_ *world, h *Holder, _ *string, _ *Held) { h.TenantID = "t2" },
		"another grant":  func(_ *world, _ *Holder, grant *string, _ *Held) { *grant = "g2" },
		"another policy": func(w *world, _ *Holder, _ *string, _ *Held) {
			w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "new" })
		},
		"another endpoint": func(w *world, _ *Holder, _ *string, _ *Held) {
			w.authority.alter("g1", func(e *Entitlement) { e.Location.Endpoint = "https://s3.example.com" })
		},
		"another account": func(w *world, _ *Holder, _ *string, _ *Held) {
			w.authority.alter("g1", func(e *Entitlement) { e.Account = "other" })
		},
		"revoked": func(w *world, _ *Holder, _ *string, held *Held) { w.authority.revoke(held.ID) },
		"expired": func(_ *world, _ *Holder, _ *string, _ *Held) { pass(hours(1)) },
		"expired, says lie": func(_ *world, _ *Holder, _ *string, held *Held) {
			pass(hours(1))
			held.Expires = time.Now().Add(hour)
		},
		"outlives certificate":  func(_ *world, h *Holder, _ *string, _ *Held) { h.Certificate.NotAfter = time.Now().Add(hours(0.8)) },
		"an id that is no id":   func(_ *world, _ *Holder, _ *string, held *Held) { held.ID = string(make([]byte, 10_000)) },
		"no id at all":          func(_ *world, _ *Holder, _ *string, held *Held) { held.ID = "" },
		"record without expiry": func(w *world, _ *Holder, _ *string, _ *Held) { w.trail.records[0].Expires = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				first := w.subscribe(1)
				after(time.Minute)
				h, grant := holder(1), "g1"
				held := &Held{ID: first.credential().ID, Expires: first.credential().Expires}
				w.restart()
				calls := w.sts.count()
				spoil(w, &h, &grant, held)
				a := w.subscribeAs(1, h, grant, held)
				after(time.Second)
				a.want(1, 0, 0)
				if a.credential().ID == first.credential().ID {
					t.Error("the same credential was issued again")
				}
				if n := len(w.sts.made()) - calls; n > 1 {
					t.Errorf("%d calls", n)
				}
				if s := w.m.Stats(); s.Resumed != 0 {
					t.Error("it was resumed")
				}
			}, withAccount("other", newSTS()))
		})
	}
}

// With less than a third of its life left a held credential is accepted, and
// renewed at once, the emptiest first.
func TestHeldIsNearlyOver(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents = 50
		held, ends := make([]*Held, agents), map[string]time.Time{}
		for i := range held {
			a := w.subscribe(i)
			after(10 * time.Second)
			held[i] = &Held{ID: a.credential().ID}
			ends[holder(i).AgentID] = a.credential().Expires
			a.sub.Close()
		}
		after(40 * time.Minute)
		w.restart()
		calls := w.sts.count()
		all := make([]*agent, agents)
		for i := range all {
			n := (i * 7) % agents // not in the order of their ends
			all[i] = w.subscribeAs(n, holder(n), "g1", held[n])
		}
		after(20 * time.Second)
		for _, a := range all {
			a.want(1, 0, 0)
		}
		if s := w.m.Stats(); s.Resumed != agents {
			t.Errorf("%d were resumed", s.Resumed)
		}
		// Those whose look-up came first may have gone first.
		checkOrder(t, w.sts.made()[calls+defaultLookups:], ends)
	}, withRate(5))
}

// A resumed lease has no secret: whoever needs one has it issued.
func TestResumedLeaseHasNoSecret(t *testing.T) {
	for name, need := range map[string]func(t *testing.T, w *world, a *agent, id string){
		"a second stream": func(_ *testing.T, w *world, _ *agent, _ string) { w.subscribe(1) },
		"a unary call": func(t *testing.T, w *world, _ *agent, id string) {
			c, err := w.m.Credential(t.Context(), holder(1), "g1", 0)
			if err != nil || c.SecretAccessKey.IsZero() || c.ID == id {
				t.Errorf("got %+v, %v", c, err)
			}
		},
		"a refusal by S3": func(t *testing.T, _ *world, a *agent, id string) {
			if err := a.sub.Refused(id, "ExpiredToken"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				first := w.subscribe(1)
				after(time.Minute)
				w.restart()
				a := w.subscribeAs(1, holder(1), "g1", &Held{ID: first.credential().ID})
				after(time.Minute)
				a.want(0, 0, 0)
				// A stream that holds the same one costs nothing.
				b := w.subscribeAs(1, holder(1), "g1", &Held{ID: first.credential().ID})
				after(time.Minute)
				b.want(0, 0, 0)
				calls := w.sts.count()
				need(t, w, a, first.credential().ID)
				after(time.Second)
				if n := w.sts.count() - calls; n != 1 {
					t.Errorf("%d calls", n)
				}
				a.want(1, 0, 0)
				b.want(1, 0, 0)
			})
		})
	}
}

// A stream that does not hold the resumed credential is not told that it does.
func TestSecondStreamOfResumedLeaseDuringOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.subscribe(1)
		after(time.Minute)
		w.restart()
		w.sts.failing(errDown)
		a := w.subscribeAs(1, holder(1), "g1", &Held{ID: first.credential().ID})
		after(time.Second)
		b := w.subscribe(1)
		after(time.Second)
		a.want(0, 1, 0)
		b.want(0, 1, 0)
		if p := b.problems()[0].Problem; !p.GoodUntil.IsZero() {
			t.Errorf("the second stream was told %+v", p)
		}
		if p := a.problems()[0].Problem; !p.GoodUntil.Equal(first.credential().Expires) {
			t.Errorf("the first stream was told %+v", p)
		}
	}, quietly)
}

// A reconnect within the linger time is answered from memory, without a look
// into the history, whether the agent holds the credential or not.
func TestReconnectFindsItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		a.sub.Close()
		a.sub.Close()
		after(time.Minute)
		b := w.subscribeAs(1, holder(1), "g1", &Held{ID: a.credential().ID})
		c := w.subscribe(1)
		after(time.Second)
		b.want(0, 0, 0)
		c.want(1, 0, 0)
		if w.sts.count() != 1 || w.trail.lookups != 0 {
			t.Errorf("%d calls, %d look-ups", w.sts.count(), w.trail.lookups)
		}
		after(40 * time.Minute)
		b.want(1, 0, 0)
		c.want(2, 0, 0)
	})
}

// Of two brokers one has issued a later credential, which the agent brings to
// the other: that one must not hand out its own older one.
func TestHeldIsLaterThanTheLeasesOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		a.sub.Close()
		here := w.m
		there, err := New(here.cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- there.Run(ctx) }()
		w.m = there
		b := w.subscribe(1)
		after(time.Second)
		b.sub.Close()
		w.m = here
		c := w.subscribeAs(1, holder(1), "g1", &Held{ID: b.credential().ID})
		after(time.Second)
		c.want(0, 0, 0)
		if w.sts.count() != 2 || here.Stats().Resumed != 1 {
			t.Errorf("%d calls, %d resumed", w.sts.count(), here.Stats().Resumed)
		}
		// The older one again: the later is not known with its secret, so a
		// new one is issued.
		d := w.subscribeAs(1, holder(1), "g1", &Held{ID: a.credential().ID})
		after(time.Second)
		d.want(1, 0, 0)
		c.want(1, 0, 0)
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// S3 refused the credential that another stream then claims to hold.
func TestHeldWasRejected(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		w.sts.failing(errDown)
		if err := a.sub.Refused(a.credential().ID, ""); err != nil {
			t.Fatal(err)
		}
		b := w.subscribeAs(1, holder(1), "g1", &Held{ID: a.credential().ID})
		after(time.Minute)
		b.want(0, len(b.problems()), 0)
		if s := b.sub.Supply(); s.CredentialID != "" {
			t.Error("the refused credential was resumed")
		}
		if c, err := w.m.Credential(t.Context(), holder(1), "g1", 0); err == nil {
			t.Errorf("the refused credential %s was given to a caller", c.ID)
		}
		if w.trail.lookups > 1 {
			t.Errorf("%d look-ups", w.trail.lookups)
		}
		w.sts.failing(nil)
		after(time.Minute)
		b.want(1, len(b.problems()), 0)
	}, quietly)
}
