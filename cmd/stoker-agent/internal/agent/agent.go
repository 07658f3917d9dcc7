package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/hook"
	"github.com/stokerd/stoker/internal/version"
)

// StatusPath is where the report is on the local socket.
const StatusPath = "/v1/status"

// Settings are what an agent is made of.
type Settings struct {
	// Users have a client's configuration each. Where there are several, each
	// names its grants, and no grant stands twice.
	Users []client.Config
	// Listen is the endpoint's address; TokenFile holds its token.
	Listen, TokenFile string
	// Consumers have tokens of their own, by name.
	Consumers map[string]Consumer
	// Socket is where subcommands reach the agent.
	Socket string
	// CredentialsFile is the shared-credentials file; Profiles has the profile of
	// each grant in it. Empty: none is kept.
	CredentialsFile string
	Profiles        map[string]string
	// IMDS is the loopback address of a metadata service for IMDSGrant, or for the
	// only one. Empty: there is none.
	IMDS, IMDSGrant string
	// Hook is run on renewals and revocations. Nil: none is.
	Hook *hook.Config
	// ConfigFile is where the settings come from, for the report. May be empty.
	ConfigFile string
	Log        *slog.Logger
}

// Consumer is a tool with a token for some grants, or for all.
type Consumer struct {
	TokenFile string
	Grants    []string
}

// Agent is a running one.
type Agent struct {
	settings Settings
	began    time.Time
	shelf    *shelf
	record   *record
	runner   *hook.Runner
	endpoint *delivery.Endpoint
	local    *delivery.Local
	imds     *delivery.IMDS

	profiles *delivery.SharedFile
	tap      *tap
	changed  chan struct{} // wakes the file's follower
	file     sync.WaitGroup
	stopFile context.CancelFunc
	fileErr  error // read after file
}

// Open starts an agent; what it has started it stops again on an error. The agent
// goes on when ctx ends, until it is closed, so that its parts end in order.
func Open(ctx context.Context, s Settings) (*Agent, error) {
	a := &Agent{
		settings: s, began: time.Now(), shelf: newShelf(), record: newRecord(), changed: make(chan struct{}, 1),
	}
	if err := a.start(context.WithoutCancel(ctx)); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) start(ctx context.Context) error {
	token, err := delivery.KeepToken(a.settings.TokenFile)
	if err != nil {
		return err
	}
	if a.settings.CredentialsFile != "" {
		if a.profiles, err = delivery.NewSharedFile(a.settings.CredentialsFile, a.settings.Profiles); err != nil {
			return err
		}
	}
	if err := a.openSources(ctx); err != nil {
		return err
	}
	if a.local, err = delivery.ListenLocal(a.settings.Socket, a.shelf, a.settings.Log); err != nil {
		return err
	}
	if a.endpoint, err = delivery.Listen(a.settings.Listen, a.shelf, a.settings.Log); err != nil {
		return err
	}
	if err := a.endpoint.AdmitToken("run", token); err != nil {
		return err
	}
	if err := a.admitConsumers(); err != nil {
		return err
	}
	if a.settings.IMDS != "" {
		if a.imds, err = delivery.ListenIMDS(a.settings.IMDS, a.shelf, a.settings.IMDSGrant, a.settings.Log); err != nil {
			return err
		}
	}
	if a.settings.Hook != nil {
		a.runner = hook.New(*a.settings.Hook, a.settings.Log)
	}
	a.tap = newTap(a.shelf)
	for _, h := range a.shelf.holders {
		h.source.Watch(func(e client.Event) { a.observe(h.login, e) })
	}
	if a.profiles != nil {
		ctx, a.stopFile = context.WithCancel(ctx)
		a.file.Go(func() { a.fileErr = a.profiles.Follow(ctx, a.tap, a.changed, a.wrote) })
	}
	a.local.Handle(StatusPath, http.HandlerFunc(a.serveStatus)) // now that all it reports on is there
	return nil
}

// admitConsumers lets in those that have tokens of their own.
func (a *Agent) admitConsumers() error {
	for name, c := range a.settings.Consumers {
		token, err := delivery.KeepToken(c.TokenFile)
		if err == nil {
			err = a.endpoint.AdmitToken("consumer "+name, token, c.Grants...)
		}
		if err != nil {
			return fmt.Errorf("consumer %s: %w", name, err)
		}
	}
	return nil
}

// openSources starts a source for each user. The certificate is one for all, and
// the first renews it; the others take the new one from its files.
func (a *Agent) openSources(ctx context.Context) error {
	for i, config := range a.settings.Users {
		if i > 0 {
			config.Renew = false
		}
		if len(a.settings.Users) > 1 {
			config.Logger = config.Logger.With(slog.String("user", config.Login))
		}
		source, err := client.New(ctx, config)
		if err != nil {
			return fmt.Errorf("user %s: %w", config.Login, err)
		}
		a.shelf.add(config.Login, config.Grants, source)
	}
	return nil
}

// Close stops what was started: first what hands credentials out.
func (a *Agent) Close() error {
	var problems []error
	if a.stopFile != nil {
		a.stopFile()
		a.file.Wait()
		problems = append(problems, a.fileErr)
	}
	if a.endpoint != nil {
		problems = append(problems, a.endpoint.Close())
	}
	if a.imds != nil {
		problems = append(problems, a.imds.Close())
	}
	if a.local != nil {
		problems = append(problems, a.local.Close())
	}
	for _, h := range a.shelf.holders {
		problems = append(problems, h.source.Close())
	}
	// Nothing is told any more: the sources were what told.
	if a.runner != nil {
		a.runner.Close()
	}
	return errors.Join(problems...)
}

// observe is told of everything that happens to a user's source, on that source's
// goroutines.
func (a *Agent) observe(login string, e client.Event) {
	a.record.note(login, e)
	told := hook.Event{Login: login, Grant: e.Grant, Profile: a.settings.Profiles[e.Grant]}
	switch e.Kind {
	case client.EventCredential:
		told.Kind, told.Expires = hook.Renewal, e.Credential.Expires
		a.tell(told, e.Credential.Issued)
	case client.EventRevocation:
		told.Kind, told.Reason = hook.Revocation, string(client.ReasonOf(e.Err))
		a.tell(told, time.Time{})
	}
}

// tell has the hook told, where a grant has a profile once the file is as it
// should be: a tool that is made to read it again must not read the old one.
func (a *Agent) tell(e hook.Event, issued time.Time) {
	switch {
	case a.runner != nil && e.Profile != "":
		a.tap.await(e, issued)
	case a.runner != nil:
		a.runner.Tell(e)
	}
	select {
	case a.changed <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// wrote is told after each look at the shared-credentials file.
func (a *Agent) wrote(err error) {
	a.record.wrote(err)
	if err != nil {
		a.settings.Log.Error(err.Error())
	}
	if a.runner != nil {
		for _, e := range a.tap.arrived(err) {
			a.runner.Tell(e)
		}
	}
}

// serveStatus answers with the report.
func (a *Agent) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// A subcommand that has gone does not need the rest.
	_ = json.NewEncoder(w).Encode(a.Report())
}

// Advice prints what to set for a tool, through the caller's words for setting a
// variable to a text and to what is in a file.
func (a *Agent) Advice(w io.Writer, set, setFromFile func(name, text string) string) error {
	var grants []string
	for _, user := range a.settings.Users {
		grants = append(grants, user.Grants...)
	}
	slices.Sort(grants)
	if len(grants) == 0 {
		grants = []string{""}
	}
	for _, grant := range grants {
		title := "# for credentials of " + grant + ":"
		if grant == "" {
			title = "# for credentials of the only grant (add /NAME to the URI where there are several):"
		}
		_, err := fmt.Fprintf(w, "%s\n%s\n%s\n", title,
			set("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.endpoint.URL(grant)),
			set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", a.settings.TokenFile))
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "# for tools that do not know the token file:\n%s\n",
		setFromFile("AWS_CONTAINER_AUTHORIZATION_TOKEN", a.settings.TokenFile))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a.settings.Consumers)) {
		_, err := fmt.Fprintf(w, "# for %s:\n%s\n", name, set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", a.settings.Consumers[name].TokenFile))
		if err != nil {
			return err
		}
	}
	if a.imds == nil {
		return nil
	}
	for _, variable := range a.imds.Variables() {
		name, value, _ := strings.Cut(variable, "=")
		if _, err := fmt.Fprintf(w, "# for tools that know EC2's metadata service alone:\n%s\n", set(name, value)); err != nil {
			return err
		}
	}
	return nil
}

// Report says how the agent stands.
func (a *Agent) Report() Report {
	now := time.Now()
	r := Report{
		Version: version.String(), PID: os.Getpid(), Started: a.began.UTC(), Time: now.UTC(),
		ConfigFile: a.settings.ConfigFile, Endpoint: a.endpoint.URL(""), TokenFile: a.settings.TokenFile,
	}
	for _, h := range a.shelf.holders {
		status := h.source.Status()
		if r.Certificate == nil && status.Certificate.Serial != "" {
			r.Certificate = newCertificate(status)
		}
		r.Users = append(r.Users, a.reportUser(h.login, status, now))
	}
	if a.profiles != nil {
		r.CredentialsFile = a.record.file(a.settings.CredentialsFile)
	}
	r.judge()
	return r
}

func (a *Agent) reportUser(login string, status client.Status, now time.Time) User {
	u := newUser(login, status)
	u.LastError = a.record.lastOf(login)
	for _, g := range status.Grants {
		grant := newGrant(g, now)
		grant.Profile = a.settings.Profiles[g.Grant]
		a.record.complete(login, &grant)
		if a.runner != nil {
			grant.Hook = newHookRun(a.runner.Last(g.Grant))
		}
		if grant.State == StateGood && !u.Connected {
			grant.State = StateAtRisk
		}
		u.Grants = append(u.Grants, grant)
	}
	return u
}
