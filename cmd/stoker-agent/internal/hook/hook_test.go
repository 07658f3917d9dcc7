package hook

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logTo(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// One runs at a time for a grant; what comes meanwhile is told as one, the last.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		r := newRunner(Config{Timeout: time.Minute}, logTo(t), func(_ context.Context, _, environment []string) error {
			<-time.After(10 * time.Second)
			told = append(told, environment[0]+environment[len(environment)-1])
			return nil
		})
		for i, e := range []Event{
			{Kind: Renewal, Grant: "photos", Expires: time.Unix(1, 0)},
			{Kind: Renewal, Grant: "photos", Expires: time.Unix(2, 0)},
			{Kind: Revocation, Grant: "photos", Reason: "GRANT_DISABLED"},
		} {
			r.Tell(e)
			if i == 0 {
				synctest.Wait()
			}
		}
		if _, ok := r.Last("photos"); ok {
			t.Error("there is an outcome before the first end")
		}
		<-time.After(15 * time.Second)
		if o, ok := r.Last("photos"); !ok || o.Kind != Renewal || o.Took != 10*time.Second || o.Err != nil {
			t.Errorf("the first ended as %+v", o)
		}
		<-time.After(time.Minute)
		r.Close()
		want := []string{
			"STOKER_EVENT=renewalSTOKER_EXPIRES=1970-01-01T00:00:01Z",
			"STOKER_EVENT=revocationSTOKER_REASON=GRANT_DISABLED",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
	})
}

// A command that takes too long is ended; other grants do not wait for it.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := func(ctx context.Context, _, environment []string) error {
			if slices.Contains(environment, "STOKER_GRANT=photos") {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		r := newRunner(Config{Timeout: 30 * time.Second}, logTo(t), stuck)
		defer r.Close()
		r.Tell(Event{Kind: Renewal, Grant: "photos"})
		r.Tell(Event{Kind: Renewal, Grant: "videos"})
		synctest.Wait()
		if o, ok := r.Last("videos"); !ok || o.Err != nil {
			t.Errorf("the other grant's ended as %+v", o)
		}
		<-time.After(31 * time.Second)
		if o, ok := r.Last("photos"); !ok || o.Err == nil || !strings.Contains(o.Err.Error(), "timeout") {
			t.Errorf("the stuck one ended as %+v", o)
		}
	})
}

func TestFewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, most := 0, 0
		begin, end := make(chan struct{}), make(chan struct{})
		go func() {
			for {
				select {
				case <-begin:
					running++
					most = max(most, running)
				case end <- struct{}{}:
					running--
				case <-t.Context().Done():
					return
				}
			}
		}()
		r := newRunner(Config{Timeout: time.Minute}, logTo(t), func(context.Context, []string, []string) error {
			begin <- struct{}{}
			<-time.After(time.Second)
			<-end
			return nil
		})
		for _, grant := range strings.Split("abcdefghijkl", "") {
			r.Tell(Event{Kind: Renewal, Grant: grant})
		}
		<-time.After(time.Minute)
		r.Close()
		if most != mostAtOnce {
			t.Errorf("%d ran at once", most)
		}
	})
}

// Close ends what runs and what waits.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(Config{Timeout: time.Hour}, logTo(t), func(ctx context.Context, _, _ []string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		for _, grant := range strings.Split("abcdefghijkl", "") {
			r.Tell(Event{Kind: Renewal, Grant: grant})
			r.Tell(Event{Kind: Renewal, Grant: grant})
		}
		synctest.Wait()
		r.Close()
		r.Tell(Event{Kind: Renewal, Grant: "late"})
		if _, ok := r.Last("late"); ok {
			t.Error("it ran after the end")
		}
	})
}

func TestInherited(t *testing.T) {
	got := Inherited([]string{
		"PATH=/bin", "STOKER_PASSWORD=x", "STOKER_PASSWORD_FILE=x", "CREDENTIALS_DIRECTORY=x", "NOTIFY_SOCKET=x",
		"AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=r", "HOME=/h",
	})
	if want := []string{"PATH=/bin", "AWS_REGION=r", "HOME=/h"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestEnvironment(t *testing.T) {
	r := newRunner(Config{Environment: []string{"A=1"}, Socket: "/s"}, logTo(t), nil)
	defer r.Close()
	for want, e := range map[string]Event{
		"A=1 STOKER_EVENT=renewal STOKER_GRANT=g STOKER_LOGIN=l@t STOKER_SOCKET=/s STOKER_EXPIRES=1970-01-01T00:00:09Z STOKER_PROFILE=p": {
			Kind: Renewal, Login: "l@t", Grant: "g", Expires: time.Unix(9, 0), Profile: "p",
		},
		"A=1 STOKER_EVENT=revocation STOKER_GRANT=g STOKER_LOGIN=l@t STOKER_SOCKET=/s STOKER_REASON=USER_DISABLED": {
			Kind: Revocation, Login: "l@t", Grant: "g", Reason: "USER_DISABLED",
		},
	} {
		if got := strings.Join(r.environment(e), " "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

var errBroken = errors.New("broken")

func TestFailureIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		log := slog.New(slog.NewTextHandler(&text, nil))
		r := newRunner(Config{Timeout: time.Minute}, log, func(context.Context, []string, []string) error { return errBroken })
		r.Tell(Event{Kind: Renewal, Grant: "photos"})
		synctest.Wait()
		if o, ok := r.Last("photos"); !ok || !errors.Is(o.Err, errBroken) {
			t.Errorf("%+v", o)
		}
		r.Close()
		if !strings.Contains(text.String(), "level=ERROR") || !strings.Contains(text.String(), "grant=photos") || !strings.Contains(text.String(), "broken") {
			t.Errorf("the log: %s", text.String())
		}
	})
}
