package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/internal/transcript"
	"github.com/stokerd/stoker/server/internal/revocation"
	"github.com/stokerd/stoker/server/internal/storage"
)

// live is a revocation of the user n as of now.
func live(n int) storage.Revocation {
	return revoke(n, "user", id("user", n), id("tenant", n%3), time.Now())
}

func TestARevocationIsAppliedAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		pass(time.Minute)
		if reads, writes := iam.counts(); reads != 1 || writes != 0 {
			t.Errorf("with nothing to do: %d reads, %d writes", reads, writes)
		}
		r := live(1)
		w.add(r)
		pass(5 * time.Second)
		if got := w.state(r.ID); got != storage.RevocationApplied {
			t.Fatalf("after 5s: %s", got)
		}
		if iam.standing() != revocation.Compose([]storage.Revocation{r}, revocation.UserLimit).Text {
			t.Errorf("what stands is %s", iam.standing())
		}
		pass(time.Hour - 5*time.Second)
		if got := w.state(r.ID); got != storage.RevocationApplied || iam.standing() == "" {
			t.Errorf("at its end: %s", got)
		}
		pass(10 * time.Second)
		if got := w.state(r.ID); got != storage.RevocationExpired || iam.standing() != "" {
			t.Errorf("after its end: %s, %q", got, iam.standing())
		}
		if diff := cmp.Diff([]string{"revocation.applied " + r.ID, "revocation.expired " + r.ID}, w.events()); diff != "" {
			t.Error(diff)
		}
		record := w.records[0]
		if record.Actor != "broker" || record.Tenant != "name-of-"+r.TenantID || record.UserID != r.TargetID || record.Account != "main" || record.Detail["subject"] != "user stoker" {
			t.Errorf("the record is %+v", record)
		}
		if _, writes := iam.counts(); writes != 2 {
			t.Errorf("%d writes", writes)
		}
	})
}

func TestWhatIsPendingAtTheStartIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		pending, local, over := live(1), live(2), live(3)
		local.State, over.Until = storage.RevocationLocal, time.Now().Add(-time.Minute)
		w.add(pending, local, over)
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		pass(5 * time.Second)
		for r, want := range map[string]storage.RevocationState{
			// Whatever was made before the account said apply is applied now.
			pending.ID: storage.RevocationApplied, local.ID: storage.RevocationApplied, over.ID: storage.RevocationExpired,
		} {
			if got := w.state(r); got != want {
				t.Errorf("%s is %s, want %s", r, got, want)
			}
		}
		if strings.Contains(iam.standing(), over.TargetID) {
			t.Error("what is over is denied")
		}
	})
}

func TestFailuresAreToldAndTriedAgain(t *testing.T) {
	for _, call := range []string{"Inline", "Put"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, iam := newWorld(), newIAM()
				defer replica(t, w, accounts(revocation.Apply, iam), nil)()
				pass(5 * time.Second)
				iam.fail(call, errors.New("AccessDenied: not authorized"))
				r := live(1)
				w.add(r)
				pass(time.Hour / 2)
				if w.state(r.ID) != storage.RevocationFailed || w.problem(r.ID) != "AccessDenied: not authorized" {
					t.Fatalf("%s: %q", w.state(r.ID), w.problem(r.ID))
				}
				if got := w.events(); len(got) != 1 {
					t.Errorf("one failure is recorded as %q", got)
				}
				if reads, _ := iam.counts(); reads < 10 || reads > 40 {
					t.Errorf("%d tries in half an hour", reads)
				}
				iam.fail(call, errors.New("Throttling"))
				pass(6 * time.Minute)
				iam.fail(call, nil)
				pass(6 * time.Minute)
				if w.state(r.ID) != storage.RevocationApplied || w.problem(r.ID) != "" {
					t.Errorf("%s: %q", w.state(r.ID), w.problem(r.ID))
				}
				want := []string{"revocation.failed " + r.ID, "revocation.failed " + r.ID, "revocation.applied " + r.ID}
				if diff := cmp.Diff(want, w.events()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A denial that stands is not called failed because a later look or its
// removal fails.
func TestAFailureTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		r := live(1)
		w.add(r)
		pass(10 * time.Second)
		iam.fail("Inline", errors.New("unreachable"))
		pass(30 * time.Minute)
		if w.state(r.ID) != storage.RevocationApplied || w.problem(r.ID) != "" {
			t.Errorf("%s: %q", w.state(r.ID), w.problem(r.ID))
		}
		pass(36 * time.Minute)
		if w.state(r.ID) != storage.RevocationApplied || !strings.Contains(w.problem(r.ID), "could not be removed: unreachable") {
			t.Errorf("%s: %q", w.state(r.ID), w.problem(r.ID))
		}
		iam.fail("Inline", nil)
		pass(6 * time.Minute)
		if w.state(r.ID) != storage.RevocationExpired || w.problem(r.ID) != "" || iam.standing() != "" {
			t.Errorf("%s: %q", w.state(r.ID), w.problem(r.ID))
		}
	})
}

// Trouble in the broker is no failure of the account.
func TestNothingIsCalledAppliedWithoutARecord(t *testing.T) {
	for _, call := range []string{"Append", "UpdateRevocation", "GetRevocation", "Sync"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, iam := newWorld(), newIAM()
				w.fail(call, storage.ErrUnavailable)
				defer replica(t, w, accounts(revocation.Apply, iam), nil)()
				r := live(1)
				w.add(r)
				pass(time.Minute)
				if got := w.state(r.ID); got != storage.RevocationPending {
					t.Errorf("while it fails: %s", got)
				}
				if call != "Sync" && iam.standing() == "" {
					t.Error("the denial waits for the records")
				}
				w.fail(call, nil)
				pass(5 * time.Minute)
				if got := w.state(r.ID); got != storage.RevocationApplied {
					t.Errorf("after it: %s", got)
				}
			})
		})
	}
}

func TestAPolicyThatSomebodyChangedIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		w.add(live(1))
		pass(10 * time.Second)
		want := iam.standing()
		for _, document := range []string{"", `{"Version":"2012-10-17","Statement":[]}`} {
			iam.mu.Lock()
			iam.document = document
			iam.mu.Unlock()
			pass(12 * time.Minute)
			if got := iam.standing(); got != want || want == "" {
				t.Errorf("after %q stands %q", document, got)
			}
		}
	})
}

// AWS may take seconds to show what was written to it.
func TestAppliedMeansReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		iam.delay = 8 * time.Second
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		pass(20 * time.Second)
		r := live(1)
		w.add(r)
		pass(8 * time.Second)
		if got := w.state(r.ID); got != storage.RevocationPending || iam.standing() == "" {
			t.Errorf("written and not visible: %s", got)
		}
		pass(10 * time.Second)
		if got := w.state(r.ID); got != storage.RevocationApplied {
			t.Errorf("visible: %s", got)
		}
		if _, writes := iam.counts(); writes != 1 {
			t.Errorf("%d writes", writes)
		}
	})
}

func TestReplicasShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		for range 3 {
			defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		}
		var rows []storage.Revocation
		for n := range 5 {
			rows = append(rows, live(n))
			w.add(rows[n])
			pass(10 * time.Second)
		}
		for _, r := range rows {
			if got := w.state(r.ID); got != storage.RevocationApplied {
				t.Errorf("%s is %s", r.ID, got)
			}
		}
		if _, writes := iam.counts(); writes > 8 {
			t.Errorf("%d writes for 5 revocations", writes)
		}
		pass(2 * time.Hour)
		if iam.standing() != "" {
			t.Errorf("left: %s", iam.standing())
		}
	})
}

// A replica that writes on older knowledge over another's newer policy finds
// out and corrects it.
func TestAnOverwrittenPolicyIsCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		first, second := live(1), live(2)
		iam.before = func(string) {
			// In the moment before the first write another replica is done
			// with a second revocation.
			iam.mu.Lock()
			iam.before = nil
			iam.document = "the other replica's, with both"
			iam.mu.Unlock()
			second.State = storage.RevocationApplied
			w.add(second)
		}
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		w.add(first)
		pass(3 * time.Second)
		pass(3 * time.Second)
		if got := iam.standing(); !strings.Contains(got, first.TargetID) || !strings.Contains(got, second.TargetID) {
			t.Errorf("what stands is %s", got)
		}
	})
}

func TestWhatDoesNotFitIsFailedUntilThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		iam.others = 1700
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		var rows []storage.Revocation
		for n := range 9 {
			r := revoke(n, "tenant", id("tenant", n), id("tenant", n), time.Now())
			rows = append(rows, r)
			w.add(r)
			pass(5 * time.Second)
		}
		states := func() (list []string) {
			for _, r := range rows {
				list = append(list, string(w.state(r.ID)))
			}
			return list
		}
		got := states()
		fits := slices.Index(got, "failed")
		if fits < 2 || slices.Contains(got[fits:], "applied") || !strings.Contains(w.problem(rows[8].ID), "348 characters beside other people's") {
			t.Fatalf("%v: %q", got, w.problem(rows[8].ID))
		}
		iam.mu.Lock()
		iam.others = 0
		iam.mu.Unlock()
		pass(12 * time.Minute)
		if got := states(); slices.Contains(got, "failed") {
			t.Errorf("with room: %v", got)
		}
	})
}

func TestPrintLogsThePolicyAndWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(), &transcript.Transcript{}
		defer replica(t, w, accounts(revocation.Print, nil), slog.New(slog.NewTextHandler(log, nil)))()
		count := func(fragment string) int { return strings.Count(log.String(), fragment) }
		r, pending := live(1), live(2)
		r.State = storage.RevocationLocal
		w.add(r)
		pass(10 * time.Second)
		w.add(pending) // the account said apply then
		pass(10 * time.Second)
		if count("this policy would deny") != 2 || count(r.TargetID) != 2 || count(pending.TargetID) != 1 {
			t.Errorf("logged:\n%s", log)
		}
		if w.state(r.ID) != storage.RevocationLocal || w.state(pending.ID) != storage.RevocationLocal {
			t.Errorf("%s, %s", w.state(r.ID), w.state(pending.ID))
		}
		pass(2 * time.Hour)
		if count("nothing is to be denied any more") != 1 || w.state(r.ID) != storage.RevocationExpired {
			t.Errorf("%s, logged:\n%s", w.state(r.ID), log)
		}
	})
}

func TestRevocationsOfOtherAccountsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer replica(t, w, accounts(revocation.None, nil), nil)()
		failed, applied, gone, certificate := live(1), live(2), live(3), live(4)
		failed.State, failed.Problem = storage.RevocationFailed, "x"
		applied.State = storage.RevocationApplied
		gone.Account, gone.State = "removed", storage.RevocationLocal
		certificate.TargetKind, certificate.Account, certificate.Until, certificate.State = "certificate", "", time.Time{}, storage.RevocationLocal
		w.add(failed, applied, gone, certificate)
		pass(time.Minute)
		if w.state(failed.ID) != storage.RevocationLocal || w.problem(failed.ID) != "" || w.state(applied.ID) != storage.RevocationApplied {
			t.Errorf("%s, %s", w.state(failed.ID), w.state(applied.ID))
		}
		pass(2 * time.Hour)
		for _, r := range []storage.Revocation{failed, applied, gone} {
			if got := w.state(r.ID); got != storage.RevocationExpired {
				t.Errorf("%s is %s", r.ID, got)
			}
		}
		if !strings.Contains(w.problem(applied.ID), "by hand") {
			t.Errorf("problem %q", w.problem(applied.ID))
		}
		if got := w.state(certificate.ID); got != storage.RevocationLocal {
			t.Errorf("a certificate's is %s", got)
		}
	})
}

// A storm of revocations is a few writes.
func TestWritesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		iam.limit = revocation.RoleLimit
		defer replica(t, w, accounts(revocation.Apply, iam), nil)()
		pass(5 * time.Second)
		for n := range 200 {
			w.add(live(n))
			pass(20 * time.Millisecond)
		}
		pass(10 * time.Second)
		if _, writes := iam.counts(); writes > 8 {
			t.Errorf("%d writes in 14s", writes)
		}
		for _, r := range (current{w}).Revocations() {
			if r.State != storage.RevocationApplied {
				t.Errorf("%s is %s", r.ID, r.State)
			}
		}
	})
}

func TestStoppingIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, iam := newWorld(), newIAM()
		entered := make(chan struct{})
		blocking := blockingIAM{fakeIAM: iam, entered: entered}
		stop := replica(t, w, accounts(revocation.Apply, blocking), nil)
		r := live(1)
		w.add(r)
		<-entered
		stop()
		if got := w.state(r.ID); got != storage.RevocationPending {
			t.Errorf("it is %s", got)
		}
	})
}

// blockingIAM holds each read until its caller gives up.
type blockingIAM struct {
	*fakeIAM
	entered chan struct{}
}

func (b blockingIAM) Inline(ctx context.Context) (revocation.Inline, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return revocation.Inline{}, ctx.Err()
}

func TestNewReportsAllThatIsWrong(t *testing.T) {
	if _, err := revocation.New(revocation.Config{}); err == nil || !strings.Contains(err.Error(), "all required") {
		t.Errorf("nothing: %v", err)
	}
	w := newWorld()
	_, err := revocation.New(revocation.Config{Directory: current{w}, Store: w, Trail: w, Log: slog.New(slog.DiscardHandler), Accounts: map[string]revocation.Account{
		"a": {}, "b": {MaxLifetime: time.Hour, Mode: revocation.Apply}, "c": {MaxLifetime: time.Hour, Mode: revocation.Print}, "d": {MaxLifetime: time.Hour, Mode: "perhaps"},
	}})
	for _, want := range []string{`"a": the longest lifetime is missing`, `"b": mode apply needs a way to IAM`, `"c": mode print needs a limit`, `"d": mode "perhaps"`} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
