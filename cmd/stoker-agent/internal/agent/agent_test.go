package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/hook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source opens a user's source, which ends with the test.
func source(t *testing.T, broker *clienttest.Broker, login string, grants ...string) *client.Source {
	t.Helper()
	config := broker.Config()
	config.Login, config.Grants = login, grants
	s, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestShelf(t *testing.T) {
	broker := clienttest.New(t, clienttest.WithGrants("photos", "papers", "videos"))
	broker.AddUser("audit@acme", broker.Password())
	several, one := newShelf(), newShelf()
	several.add("nightly@acme", []string{"photos"}, source(t, broker, "nightly@acme", "photos"))
	several.add("audit@acme", []string{"papers"}, source(t, broker, "audit@acme", "papers"))
	one.add("nightly@acme", []string{"photos"}, source(t, broker, "nightly@acme", "photos"))
	if got := several.Grants(); !slices.Equal(got, []string{"papers", "photos"}) {
		t.Errorf("grants %v", got)
	}
	for _, grant := range []string{"photos", "papers"} {
		if c, err := several.Credential(grant); err != nil || c.Grant != grant {
			t.Errorf("%s: %v, %v", grant, c, err)
		}
	}
	if c, err := one.Credential(""); err != nil || c.Grant != "photos" {
		t.Errorf("the only one: %v, %v", c, err)
	}
	var of *client.CredentialError
	if _, err := several.Credential(""); !errors.Is(err, client.ErrAmbiguous) || !errors.As(err, &of) {
		t.Errorf("of several: %v", err)
	}
	if _, err := several.Credential("videos"); !errors.Is(err, client.ErrNotConfigured) || !errors.As(err, &of) {
		t.Errorf("of nobody: %v", err)
	}
}

// supply hands out what a test puts on it.
type supply map[string]client.Credential

func (s supply) Credential(grant string) (client.Credential, error) {
	c, ok := s[grant]
	if !ok {
		return c, &client.CredentialError{Grant: grant, State: client.ErrRevoked}
	}
	return c, nil
}

func (s supply) Grants() []string { return nil }

// The hook is told once what it is told of is in the file.
func TestTap(t *testing.T) {
	now := time.Now()
	shelf := supply{"photos": {Issued: now}}
	tap := newTap(shelf)
	look := func() { _, _ = tap.Credential("photos") } // as the file's follower does
	full := errors.New("disk full")
	kinds := func(err error) string {
		var got []string
		for _, e := range tap.arrived(err) {
			got = append(got, e.Kind)
		}
		return strings.Join(got, " ")
	}
	tap.await(hook.Event{Kind: hook.Renewal, Grant: "photos"}, now.Add(time.Second))
	if got := kinds(nil); got != "" {
		t.Errorf("before any look: %q", got)
	}
	look()
	if got := kinds(nil); got != "" {
		t.Errorf("after a look at the one before: %q", got)
	}
	shelf["photos"] = client.Credential{Issued: now.Add(time.Second)}
	look()
	if got := kinds(full); got != "" {
		t.Errorf("without the file: %q", got)
	}
	if got := kinds(nil); got != "renewal" {
		t.Errorf("once it is written: %q", got)
	}
	if got := kinds(nil); got != "" {
		t.Errorf("twice: %q", got)
	}
	tap.await(hook.Event{Kind: hook.Renewal, Grant: "photos"}, now.Add(2*time.Second))
	tap.await(hook.Event{Kind: hook.Revocation, Grant: "photos"}, time.Time{})
	if got := kinds(nil); got != "" {
		t.Errorf("before it is out of the file: %q", got)
	}
	delete(shelf, "photos")
	look()
	if got := kinds(full); got != "revocation" {
		t.Errorf("a full disk must not hide a revocation: %q", got)
	}
}

func TestJudge(t *testing.T) {
	good := Grant{Name: "photos", State: StateGood, SecondsLeft: 1800, life: time.Hour}
	throttled := &Trouble{Reason: "STS_THROTTLED", Message: "slow down", Transient: true}
	disabled := &Trouble{Reason: "USER_DISABLED", Message: "ask the provider"}
	away := &Trouble{Message: "connection refused", Transient: true}
	with := func(change func(*Grant)) []Grant { g := good; change(&g); return []Grant{g} }
	for name, c := range map[string]struct {
		report Report
		says   string // empty: healthy
	}{
		"well":                  {Report{Users: []User{{Connected: true, Grants: []Grant{good}}}}, ""},
		"broker away":           {Report{Users: []User{{Error: away, Grants: []Grant{good}}}}, ""},
		"broker away, long":     {Report{Users: []User{{Error: away, Grants: with(func(g *Grant) { g.SecondsLeft = 800 })}}}, "grant photos: 800 seconds left and not renewed"},
		"throttled":             {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.Error = throttled })}}}, ""},
		"throttled, long":       {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.Error = throttled; g.SecondsLeft = 800 })}}}, "800 seconds left and not renewed: STS_THROTTLED"},
		"refused":               {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.Error = disabled })}}}, "USER_DISABLED"},
		"expired":               {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.SecondsLeft = 0; g.State = StateExpired })}}}, "grant photos: expired"},
		"expired, why":          {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.SecondsLeft = 0; g.Error = throttled })}}}, "grant photos: STS_THROTTLED"},
		"rejected":              {Report{Users: []User{{Login: "a@b", Error: disabled, Grants: []Grant{good}}}}, "a@b: USER_DISABLED"},
		"no grant":              {Report{Users: []User{{Connected: true}}}, "no grant: ask the provider"},
		"never connected":       {Report{Users: []User{{}}}, "not connected yet"},
		"never connected, why":  {Report{Users: []User{{Error: away}}}, "connection refused"},
		"clock ahead":           {Report{Users: []User{{Connected: true, ClockAhead: 3600, Grants: []Grant{good}}}}, "1h0m0s ahead of the broker's: correct it"},
		"clock behind":          {Report{Users: []User{{Connected: true, ClockAhead: -3600, Grants: []Grant{good}}}}, "1h0m0s behind the broker's: correct it"},
		"clock off by a minute": {Report{Users: []User{{Connected: true, ClockAhead: 61, Grants: []Grant{good}}}}, ""},
		"certificate":           {Report{Certificate: &Certificate{Error: &Trouble{Message: "it ends"}}}, "certificate: it ends"},
		"file":                  {Report{CredentialsFile: &CredentialsFile{Error: &Trouble{Message: "disk full"}}}, "disk full"},
		"hook":                  {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.Hook = &HookRun{Error: "exit code 3"} })}}}, "the hook failed: exit code 3"},
		"hook ran":              {Report{Users: []User{{Connected: true, Grants: with(func(g *Grant) { g.Hook = &HookRun{} })}}}, ""},
	} {
		c.report.judge()
		got := strings.Join(c.report.Complaints, "\n")
		if c.report.Healthy != (c.says == "") || !strings.Contains(got, c.says) || (c.says == "") != (got == "") {
			t.Errorf("%s: healthy %v, it says %q", name, c.report.Healthy, got)
		}
	}
}

func TestNewGrant(t *testing.T) {
	now := time.Now()
	held := client.Credential{Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour), AccessKeyID: "ASIA"}
	for want, s := range map[string]client.GrantStatus{
		StateGood:    {Credential: held},
		StateAtRisk:  {Credential: held, Err: &client.Error{Reason: client.ReasonSTSThrottled, Transient: true}},
		StateWaiting: {Err: &client.CredentialError{State: client.ErrNoCredentialYet}},
		StateExpired: {Err: &client.CredentialError{State: client.ErrExpired}},
		StateRevoked: {Err: &client.CredentialError{State: client.ErrRevoked, Cause: &client.Error{Reason: client.ReasonGrantDisabled}}},
	} {
		if got := newGrant(s, now); got.State != want || (got.SecondsLeft > 0) != (want == StateGood || want == StateAtRisk) {
			t.Errorf("%s: %+v", want, got)
		}
	}
}

// A text for each way that an agent can stand.
func TestPrint(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	trouble := &Trouble{Reason: "STS_THROTTLED", Message: "slow down", Transient: true, Time: at}
	r := Report{
		Version: "1.2.3", PID: 7, Started: at, ConfigFile: "/etc/stoker/stoker-agent.yaml", Endpoint: "http://127.0.0.1:9797/v1/credentials",
		Certificate: &Certificate{}, CredentialsFile: &CredentialsFile{Path: "/root/.aws/credentials"},
		Users: []User{
			{Login: "a@acme", Connected: true, Since: at, Broker: "b:1", Agent: "nas-1", LastError: trouble, Grants: []Grant{
				{Name: "photos", State: StateGood, SecondsLeft: 90, Expires: at, Renewed: at, Target: "s3://b/p/", LastError: trouble, Hook: &HookRun{Event: "renewal"}, life: time.Minute},
				{Name: "videos", State: StateWaiting, Error: trouble, Hook: &HookRun{Event: "renewal", Error: "exit code 3"}},
			}},
			{Login: "b@acme", Since: at, Error: trouble, RetryTime: at},
			{Login: "c@acme", Since: at, RetryTime: at},
			{Login: "d@acme"},
		},
	}
	r.judge()
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{
		"NOT HEALTHY: version 1.2.3, process 7, since 2026-01-02T03:04:05Z", "/etc/stoker/stoker-agent.yaml", "/root/.aws/credentials",
		"connected to b:1 since 2026-01-02T03:04:05Z, as agent nas-1", "last error 2026-01-02T03:04:05Z: STS_THROTTLED: slow down",
		"not connected since 2026-01-02T03:04:05Z: STS_THROTTLED: slow down; connecting again at 2026-01-02T03:04:05Z",
		"not connected since 2026-01-02T03:04:05Z; connecting again", "d@acme            not connected yet",
		"good     1m30s", "renewal failed", "! a@acme: grant videos: STS_THROTTLED: slow down",
	} {
		if !strings.Contains(out.String(), says) {
			t.Errorf("it does not say %q:\n%s", says, out.String())
		}
	}
}
