package authn

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

// try makes one attempt that ends at once and gives the delay that it met.
func try(t *testing.T, th *throttle, thumbprint, login string, o outcome) time.Duration {
	t.Helper()
	a, err := th.begin(t.Context(), thumbprint, login)
	if err == nil {
		a.end(o)
		return 0
	}
	var e *reason.Error
	if !errors.As(err, &e) || e.Reason != reason.LoginDelayed || e.RetryAfter <= 0 {
		t.Fatalf("%s %s: %v", thumbprint, login, err)
	}
	return e.RetryAfter
}

func TestDelaysGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 4 { // three are free, the fourth begins the delays
			if wait := try(t, th, "c", "alice@acme", wrong); wait != 0 {
				t.Fatalf("a free failure was delayed by %s", wait)
			}
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			want *= time.Second
			wait := try(t, th, "c", "alice@acme", wrong)
			if wait != want {
				t.Fatalf("delay %s, want %s", wait, want)
			}
			if again := try(t, th, "c", "alice@acme", wrong); again != want {
				t.Fatal("an attempt that was delayed counted")
			}
			pass(wait - time.Millisecond)
			if try(t, th, "c", "alice@acme", wrong) == 0 {
				t.Fatal("the delay ended early")
			}
			pass(time.Millisecond)
			if wait := try(t, th, "c", "alice@acme", wrong); wait != 0 {
				t.Fatalf("still delayed by %s", wait)
			}
		}
	})
}

// A failure delays its own certificate and login, nobody else's.
func TestDelaysAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 4 {
			try(t, th, "c", "alice@acme", wrong)
		}
		if try(t, th, "c", "alice@acme", right) == 0 {
			t.Fatal("not delayed")
		}
		if try(t, th, "d", "alice@acme", right) != 0 {
			t.Error("the login is locked out for another certificate")
		}
		if try(t, th, "c", "carol@acme", right) != 0 {
			t.Error("another login is locked out for the certificate")
		}
		if try(t, th, "c", "alice@acme", right) == 0 {
			t.Error("another login's success cleared the failures")
		}
	})
}

func TestFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 6 {
			for try(t, th, "c", "alice@acme", wrong) != 0 {
				pass(time.Second)
			}
		}
		// Six are counted; three are forgotten in half an hour, and what is
		// left is free.
		pass(3 * forgetAfter)
		if wait := try(t, th, "c", "alice@acme", wrong); wait != 0 {
			t.Fatalf("delayed by %s", wait)
		}
		if try(t, th, "c", "alice@acme", wrong) == 0 {
			t.Error("all were forgotten at once")
		}
		pass(5 * forgetAfter)
		if try(t, th, "c", "alice@acme", right) != 0 || len(th.peers) != 0 {
			t.Errorf("%d certificates are remembered", len(th.peers))
		}
	})
}

func TestSuccessClearsTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 10 {
			for range 3 {
				if try(t, th, "c", "alice@acme", wrong) != 0 {
					t.Fatal("delayed")
				}
			}
			if try(t, th, "c", "alice@acme", undecided) != 0 || th.peers["c"].logins["alice@acme"].count != 3 {
				t.Fatal("an attempt without a verdict changed the count")
			}
			if try(t, th, "c", "alice@acme", right) != 0 || len(th.peers) != 0 {
				t.Fatal("a success did not clear the count")
			}
		}
	})
}

// Guesses at once must not outrun the count.
func TestGuessesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		checked, delayed := 0, 0
		results := make(chan error)
		for range 40 {
			go func() {
				a, err := th.begin(t.Context(), "c", "alice@acme")
				if err == nil {
					pass(25 * time.Millisecond) // the hash
					a.end(wrong)
				}
				results <- err
			}()
		}
		for range 40 {
			switch err := <-results; {
			case err == nil:
				checked++
			case reason.Is(err, reason.LoginDelayed):
				delayed++
			default:
				t.Error(err)
			}
		}
		if checked != 4 || delayed != 36 {
			t.Errorf("%d guesses were checked, %d delayed", checked, delayed)
		}
	})
}

// Right logins at once are all served, few at a time; too many at once are
// turned away.
func TestRightLoginsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		var running, most atomic.Int64
		busy := 0
		results := make(chan error)
		for i := range maxParallel + maxWaiting + 5 {
			go func() {
				a, err := th.begin(t.Context(), "c", fmt.Sprintf("user%d@acme", i%4))
				if err == nil {
					most.Store(max(most.Load(), running.Add(1)))
					pass(25 * time.Millisecond)
					running.Add(-1)
					a.end(right)
				}
				results <- err
			}()
		}
		for range maxParallel + maxWaiting + 5 {
			if err := <-results; reason.Is(err, reason.LoginBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if most.Load() != maxParallel || busy != 5 || len(th.peers) != 0 {
			t.Errorf("%d at once, %d turned away, %d remembered", most.Load(), busy, len(th.peers))
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		var held []*attempt
		for range maxParallel {
			a, err := th.begin(t.Context(), "c", "alice@acme")
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, a)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := th.begin(ctx, "c", "alice@acme"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if th.peers["c"].waiting != 0 {
			t.Error("it is still waiting")
		}
		for _, a := range held {
			a.end(undecided)
		}
		if len(th.peers) != 0 {
			t.Error("something is remembered")
		}
	})
}

// A guesser cannot make room for himself with logins that he makes up: those
// that find no place share one count, and his own stays.
func TestManyLoginsOfOneCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 4 {
			try(t, th, "c", "alice@acme", wrong)
		}
		checked := 0
		for i := range 10_000 {
			if try(t, th, "c", fmt.Sprintf("made-up-%d@acme", i), wrong) == 0 {
				checked++
			}
		}
		if limit := maxLogins - 1 + freeFailures + 1; checked > limit {
			t.Errorf("%d guesses were checked, the limit is %d", checked, limit)
		}
		if try(t, th, "c", "alice@acme", wrong) == 0 {
			t.Error("the guesser was forgotten")
		}
		if n := len(th.peers["c"].logins); n > maxLogins {
			t.Errorf("%d logins are remembered", n)
		}
		// A success among the others does not clear what they share.
		pass(2 * time.Second)
		if try(t, th, "c", "one-more@acme", right) != 0 || th.peers["c"].others.count == 0 {
			t.Error("one login's success cleared the failures of others")
		}
		// Once forgotten, their places are free again.
		pass(time.Hour)
		if try(t, th, "c", "late@acme", wrong); th.peers["c"].logins["late@acme"] == nil {
			t.Error("a forgotten login keeps its place")
		}
	})
}

func TestManyCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		th.limit = 8
		// The guesser has more failures than anybody.
		for range 4 {
			try(t, th, "guesser", "alice@acme", wrong)
		}
		for i := range 1000 {
			try(t, th, fmt.Sprintf("c%d", i), "alice@acme", wrong)
			if len(th.peers) > 8 {
				t.Fatalf("%d certificates are remembered", len(th.peers))
			}
		}
		if try(t, th, "guesser", "alice@acme", wrong) == 0 {
			t.Error("the guesser was pushed out")
		}
		// What has run its course goes first.
		pass(forgetAfter)
		try(t, th, "newcomer", "alice@acme", wrong)
		if len(th.peers) != 2 {
			t.Errorf("%d certificates are remembered", len(th.peers))
		}
	})
}

func TestNoRoomWhileAllAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		th.limit = 1
		a, err := th.begin(t.Context(), "c", "alice@acme")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := th.begin(t.Context(), "d", "alice@acme"); !reason.Is(err, reason.LoginBusy) {
			t.Errorf("%v", err)
		}
		a.end(undecided)
		if try(t, th, "d", "alice@acme", right) != 0 {
			t.Error("there is room now")
		}
	})
}
