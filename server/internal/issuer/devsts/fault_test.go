package devsts

import (
	"context"
	"errors"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

func (f *fixture) inject(t *testing.T, faults ...Fault) {
	t.Helper()
	for _, fault := range faults {
		if err := f.Inject(fault); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fixture) issue(ctx context.Context) (*sts.GetFederationTokenOutput, error) {
	return f.client(f.user).GetFederationToken(ctx, &sts.GetFederationTokenInput{Name: aws.String("fed"), Policy: aws.String(policy), DurationSeconds: aws.Int32(900)})
}

func TestErrorFaults(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		fault  Fault
		code   string
		status int
		after  string
		kind   string
	}{
		{Fault{Kind: Throttle}, "Throttling", 400, "", "Sender"},
		{Fault{Kind: Throttle, RetryAfter: 7 * time.Second}, "Throttling", 400, "7", "Sender"},
		{Fault{Kind: ServerError}, "InternalFailure", 500, "", "Receiver"},
		{Fault{Kind: Unavailable, RetryAfter: time.Minute}, "ServiceUnavailable", 503, "60", "Receiver"},
		{Fault{Kind: Deny}, "AccessDenied", 403, "", "Sender"},
	} {
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			f.inject(t, c.fault)
			defer f.ClearFaults()
			a := f.call(t, f.user, form("Action", "GetCallerIdentity"))
			if a.Code != c.code || a.status != c.status || a.Type != c.kind || a.header.Get("Retry-After") != c.after {
				t.Errorf("got %+v", a)
			}
		})
	}
	if a := f.call(t, f.user, form("Action", "GetCallerIdentity")); a.status != http.StatusOK {
		t.Errorf("after ClearFaults: %+v", a)
	}
}

// TestFaultCountAndAction: a fault meets as many calls of its action as it
// says, the next fault those after it.
func TestFaultCountAndAction(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Throttle, Action: "GetFederationToken", Count: 2}, Fault{Kind: ServerError, Action: "GetFederationToken", Count: 1})
	for i, want := range []string{"Throttling", "Throttling", "InternalFailure", ""} {
		if a := f.call(t, f.user, form("Action", "GetCallerIdentity")); a.status != http.StatusOK {
			t.Errorf("another action: %+v", a)
		}
		if a := f.call(t, f.user, form("Action", "GetFederationToken", "Name", "fed")); a.Code != want {
			t.Errorf("call %d: got %q, want %q", i, a.Code, want)
		}
	}
	if len(f.Issued()) != 1 {
		t.Errorf("%d issued", len(f.Issued()))
	}
}

// TestFaultsMeetAuthenticatedCallsOnly: a stranger cannot use them up.
func TestFaultsMeetAuthenticatedCallsOnly(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Throttle, Count: 1})
	if a := f.send(t, f.request(t, form("Action", "GetCallerIdentity"))); a.Code != "MissingAuthenticationToken" {
		t.Errorf("got %+v", a)
	}
	if a := f.call(t, f.user, form("Action", "GetCallerIdentity")); a.Code != "Throttling" {
		t.Errorf("got %+v", a)
	}
}

func TestFaultProbability(t *testing.T) {
	draws := []float64{0.1, 0.9, 0.49, 0.5}
	f := start(t, func(c *Config) {
		c.Random = func() float64 { d := draws[0]; draws = draws[1:]; return d }
	})
	f.inject(t, Fault{Kind: Throttle, Probability: 0.5})
	for i, want := range []string{"Throttling", "", "Throttling", ""} {
		if a := f.call(t, f.user, form("Action", "GetCallerIdentity")); a.Code != want {
			t.Errorf("call %d: got %q, want %q", i, a.Code, want)
		}
	}
}

// TestGarble: the credential was issued, and what arrives of it is no answer.
func TestGarble(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Garble, Count: 1})
	_, err := f.issue(t.Context())
	if _, ok := errors.AsType[*smithy.DeserializationError](err); !ok {
		t.Errorf("got %v", err)
	}
	if len(f.Issued()) != 1 {
		t.Errorf("%d issued", len(f.Issued()))
	}
}

func TestDrop(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Drop, Count: 1})
	_, err := f.issue(t.Context())
	if _, ok := errors.AsType[smithy.APIError](err); err == nil || ok {
		t.Errorf("got %v", err)
	}
}

// TestSkewExpiry: only the answer is wrong, the session ends when it should.
func TestSkewExpiry(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: SkewExpiry, Skew: -time.Hour, Count: 1})
	out, err := f.issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*out.Credentials.Expiration); left > -40*time.Minute {
		t.Errorf("the answer says that %s are left", left)
	}
	if left := time.Until(f.Issued()[0].Expires); left < 890*time.Second {
		t.Errorf("remembered are %s", left)
	}
	whoAmI(t, f.session(out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey, out.Credentials.SessionToken))
}

func TestDelay(t *testing.T) {
	f := start(t)
	const delay = 30 * time.Millisecond
	f.inject(t, Fault{Kind: Delay, Delay: delay, Count: 1})
	began := time.Now()
	if _, err := f.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("took %s", took)
	}
}

// TestHangEndsWithItsClient: the call is held until the client leaves.
func TestHangEndsWithItsClient(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := f.issue(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestHangEndsWithTheService: Close does not wait for clients.
func TestHangEndsWithTheService(t *testing.T) {
	f := start(t)
	f.inject(t, Fault{Kind: Hang, Action: "GetFederationToken"})
	failed := make(chan error, 1)
	go func() {
		_, err := f.issue(t.Context())
		failed <- err
	}()
	for f.Calls()["GetFederationToken"] == 0 {
		// Another call over the network takes its time, so this does not spin.
		whoAmI(t, f.client(f.user))
	}
	f.STS.Close()
	if err := <-failed; err == nil {
		t.Error("the held call succeeded")
	}
}

func TestFaultsThatCannotBe(t *testing.T) {
	f := start(t)
	for _, fault := range []Fault{
		{}, {Kind: "fire"}, {Kind: Throttle, Count: -1}, {Kind: Throttle, Probability: 1.1}, {Kind: Throttle, Probability: -1},
		{Kind: Throttle, Probability: math.NaN()}, {Kind: Delay}, {Kind: SkewExpiry},
	} {
		if err := f.Inject(fault); err == nil {
			t.Errorf("accepted: %+v", fault)
		}
	}
}
