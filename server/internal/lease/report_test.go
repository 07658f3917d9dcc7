package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
)

// S3 refused a credential: it is replaced at once, recorded, and not more often
// than once a minute.
func TestRefusedByS3(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		first := a.credential()
		if err := a.sub.Refused(first.ID, "InvalidAccessKeyId"); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		a.want(2, 0, 0)
		rec := w.trail.of(audit.CredentialRejected)
		if len(rec) != 1 || rec[0].CredentialID != first.ID || rec[0].Detail["s3_error_code"] != "InvalidAccessKeyId" {
			t.Errorf("recorded %+v", rec)
		}
		err := a.sub.Refused(a.credential().ID, "")
		wantReason(t, err, reason.ReportTooFrequent)
		var e *reason.Error
		if errors.As(err, &e); e.RetryAfter != 59*time.Second {
			t.Errorf("retry after %s", e.RetryAfter)
		}
		after(59 * time.Second)
		if err := a.sub.Refused(a.credential().ID, ""); err != nil {
			t.Error(err)
		}
		after(time.Second)
		a.want(3, 0, 0)
	})
}

// A report that comes before the history has confirmed what the agent holds is
// no less true: an agent that was told by S3 while the broker was away reports
// with its first message, and a restart has many look-ups before its own.
func TestRefusedBeforeTheLookUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		held := &Held{ID: a.credential().ID, Expires: a.credential().Expires}
		w.trail.set(func(f *fakeTrail) { f.slow = 5 * time.Second })
		w.restart()
		b := w.subscribeAs(1, holder(1), "g1", held)
		if err := b.sub.Refused(held.ID, "InvalidAccessKeyId"); err != nil {
			t.Fatal(err)
		}
		after(30 * time.Second)
		b.want(1, 0, 0)
		if c := b.credential(); c.ID == held.ID {
			t.Error("it was given what S3 refuses")
		}
		if s := w.m.Stats(); s.Resumed != 0 || s.Dry != 0 {
			t.Errorf("the state is %+v", s)
		}
		wantReason(t, b.sub.Refused(b.credential().ID, ""), reason.ReportTooFrequent)
		// Another's id is not believed.
		c := w.subscribeAs(2, holder(2), "g1", held)
		wantReason(t, c.sub.Refused("00000000-0000-7000-8000-000000000000", ""), reason.CredentialUnknown)
	})
}

// Reporting in a loop, on many streams and across reconnects, costs one call a
// minute.
func TestReportLoop(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for range 120 {
			a, b := w.subscribe(1), w.subscribe(1)
			after(time.Second)
			for _, s := range []*agent{a, b} {
				if c := s.credential(); c != nil {
					_ = s.sub.Refused(c.ID, "")
				}
			}
			after(4 * time.Second)
			a.sub.Close()
			b.sub.Close()
		}
		if n := w.sts.count(); n > 13 {
			t.Errorf("%d calls in ten minutes", n)
		}
	})
}

func TestReportsThatChangeNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.subscribe(1), w.subscribe(2)
		after(time.Minute)
		wantReason(t, a.sub.Refused(b.credential().ID, ""), reason.CredentialUnknown)
		wantReason(t, a.sub.Refused("", ""), reason.CredentialUnknown)
		after(40 * time.Minute)
		a.want(2, 0, 0)
		if err := a.sub.Refused(a.credentials()[0].Credential.ID, ""); err != nil {
			t.Errorf("the credential before: %v", err)
		}
		a.sub.Close()
		wantReason(t, a.sub.Refused(a.credential().ID, ""), reason.CredentialUnknown)
		after(time.Second)
		if w.sts.count() != 4 {
			t.Errorf("%d calls", w.sts.count())
		}
	})
}

func TestAcknowledge(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.subscribe(1)
		after(time.Minute)
		a.sub.Acknowledge("")
		a.sub.Acknowledge("another")
		if s := a.sub.Supply(); !s.AcknowledgedAt.IsZero() || s.CredentialID != a.credential().ID || !s.Expires.Equal(a.credential().Expires) || !s.IssuedAt.Equal(a.credential().IssuedAt) {
			t.Errorf("the supply is %+v", s)
		}
		a.sub.Acknowledge(a.credential().ID)
		if s := a.sub.Supply(); !s.AcknowledgedAt.Equal(time.Now()) {
			t.Errorf("acknowledged at %s", s.AcknowledgedAt)
		}
		after(40 * time.Minute)
		if s := a.sub.Supply(); !s.AcknowledgedAt.IsZero() {
			t.Error("the next credential counts as acknowledged")
		}
		if got := a.sub.Holder(); got != holderAt(1, got) {
			t.Errorf("the holder is %+v", got)
		}
	})
}

// holderAt is holder with the certificate's end of another moment.
func holderAt(n int, like Holder) Holder {
	h := holder(n)
	h.Certificate.NotAfter = like.Certificate.NotAfter
	return h
}

// What keeps a subscription from its credential shows.
func TestSupplyNamesTheProblem(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.authority.deny("agent:a1", reason.New(reason.AgentDisabled, "disabled"))
		w.sts.failing(errDown)
		short := holder(2)
		short.Certificate.NotAfter = time.Now().Add(time.Minute)
		for want, a := range map[reason.Reason]*agent{
			reason.AgentDisabled:          w.subscribe(1),
			reason.CertificateEndsTooSoon: w.subscribeAs(2, short, "g1", nil),
			reason.STSUnavailable:         w.subscribe(3),
		} {
			after(time.Second)
			if s := a.sub.Supply(); s.Problem != want || s.CredentialID != "" {
				t.Errorf("the supply is %+v, want %s", s, want)
			}
		}
	}, quietly)
}
