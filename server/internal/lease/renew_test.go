package lease

import (
	"math"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
)

// Ten agents for three days: each is always supplied, and with much left.
func TestDaysOfRenewals(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		agents := make([]*agent, 10)
		for i := range agents {
			agents[i] = w.subscribe(i)
		}
		after(72 * hour)
		for _, a := range agents {
			got := a.credentials()
			// 72 hours at 50 to 65 % of an hour each.
			if len(got) < 110 || len(got) > 145 {
				t.Errorf("agent %d got %d credentials in three days", a.n, len(got))
			}
			if len(a.events) != len(got) {
				t.Errorf("agent %d was told of trouble:%s", a.n, a.story())
			}
			for i := 1; i < len(got); i++ {
				if left := got[i-1].Credential.Expires.Sub(got[i].at); left < hour/3 {
					t.Errorf("agent %d had only %s left", a.n, left)
				}
			}
		}
		if issued, renewed := len(w.trail.of(audit.CredentialIssued)), len(w.trail.of(audit.CredentialRenewed)); issued != 10 || issued+renewed != w.sts.count() {
			t.Errorf("%d issues and %d renewals are recorded, of %d calls", issued, renewed, w.sts.count())
		}
	})
}

// The part of the lifetime after which a credential is renewed is spread
// evenly over 50 to 65 %.
func TestRenewalTimesAreSpreadEvenly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents, bins = 1500, 15
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(hour)
		var histogram [bins]int
		total := 0
		for _, a := range all {
			got := a.credentials()
			life := got[0].Credential.Expires.Sub(got[0].Credential.IssuedAt)
			part := float64(got[1].at.Sub(got[0].Credential.IssuedAt)) / float64(life)
			if part < earliest || part > latest+0.01 {
				t.Fatalf("agent %d was renewed after %.3f of its life", a.n, part)
			}
			histogram[min(bins-1, int((part-earliest)/(latest-earliest)*bins))]++
			total++
		}
		// Chi-squared with 14 degrees of freedom: over 42.6 in one of 10,000.
		expected, chi := float64(total)/bins, 0.0
		for _, n := range histogram {
			chi += math.Pow(float64(n)-expected, 2) / expected
		}
		if chi > 42.6 {
			t.Errorf("renewals are not spread evenly: %v", histogram)
		}
	}, withRate(1000))
}

// A thousand leases due in the same second are served at the account's rate,
// each once, and those who run dry first go first.
func TestThousandLeasesDueInTheSameSecond(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const agents, perSecond = 1000, 20
		all := make([]*agent, agents)
		for i := range all {
			all[i] = w.subscribe(i)
		}
		after(2 * time.Minute)
		for _, a := range all {
			a.want(1, 0, 0)
		}
		checkBudget(t, w.sts.made(), perSecond)
		// All of them stale at once.
		w.authority.alter("g1", func(e *Entitlement) { e.PolicyHash = "hash-new" })
		w.change("grant", "g1")
		after(2 * time.Minute)
		for _, a := range all {
			a.want(2, 0, 0)
		}
		checkBudget(t, w.sts.made(), perSecond)
	}, withRate(20))
}

// checkBudget fails if any stretch of time saw more calls than the rate and the
// burst allow.
func checkBudget(t *testing.T, calls []call, perSecond float64) {
	t.Helper()
	burst := max(1, perSecond/10)
	for i := range calls {
		for _, stretch := range []int{1, 10, 100, 500} {
			j := i + stretch
			if j >= len(calls) {
				continue
			}
			if n, span := float64(stretch+1), calls[j].at.Sub(calls[i].at); n > burst+perSecond*span.Seconds()+0.01 {
				t.Fatalf("%v calls within %s are more than %v a second", n, span, perSecond)
			}
		}
	}
}

// The lifetime is the least of what the grant, the account and the certificate
// allow.
func TestLifetimeIsTheLeastOfAllBounds(t *testing.T) {
	for _, c := range []struct {
		name               string
		grant, certificate time.Duration
		want               time.Duration
	}{
		{"the grant's", 2 * hour, 100 * hour, 2 * hour},
		{"the account's", 40 * hour, 100 * hour, 12 * hour},
		{"the certificate's", 2 * hour, 30 * time.Minute, 30*time.Minute - certificateMargin},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.authority.addGrant("g3", "main", c.grant)
				h := holder(1)
				h.Certificate.NotAfter = time.Now().Add(c.certificate)
				a := w.subscribeAs(1, h, "g3", nil)
				after(time.Second)
				a.want(1, 0, 0)
				if got := w.sts.made()[0].request.Duration; got != c.want {
					t.Errorf("the lifetime is %s, want %s", got, c.want)
				}
			})
		})
	}
}

// As its certificate comes to its end an agent's credentials grow shorter, then
// it is told, and none ever outlives the certificate.
func TestCertificateNearsItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		h := holder(1)
		h.Certificate.NotAfter = time.Now().Add(3 * hour)
		a := w.subscribeAs(1, h, "g1", nil)
		after(3*hour - time.Minute)
		for _, c := range a.credentials() {
			if c.Credential.Expires.After(h.Certificate.NotAfter) {
				t.Errorf("a credential until %s outlives the certificate until %s", c.Credential.Expires, h.Certificate.NotAfter)
			}
		}
		got := a.problems()
		if len(got) != 1 {
			t.Fatalf("want one problem:%s", a.story())
		}
		p := got[0].Problem
		wantReason(t, p.Err, "CERTIFICATE_ENDS_TOO_SOON")
		if !p.RetryAt.IsZero() || !p.GoodUntil.Equal(a.credential().Expires) {
			t.Errorf("the problem is not permanent, or forgets the last credential: %+v", p)
		}
		if n := len(w.trail.of(audit.CredentialRefused)); n != 1 {
			t.Errorf("%d refusals are recorded", n)
		}
	})
}
