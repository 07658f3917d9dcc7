package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/hook"
)

// The states of a grant.
const (
	// StateGood: there is a credential, and nothing keeps it from being renewed.
	StateGood = "good"
	// StateAtRisk: there is a credential, and something keeps it from being
	// renewed.
	StateAtRisk = "at risk"
	// StateWaiting: no credential has arrived yet.
	StateWaiting = "waiting"
	// StateExpired: the last one has expired.
	StateExpired = "expired"
	// StateRevoked: the broker revoked it.
	StateRevoked = "revoked"
)

const (
	// leastPart is the part of a credential's life that is left where all is well:
	// a live stream never lets it fall under a third.
	leastPart = 0.25
	// mostSkew is how far a clock may be off. S3 refuses requests at fifteen
	// minutes.
	mostSkew = 5 * time.Minute
)

// Report is how an agent stands. It has no secret. It is what
// "stoker-agent status -o json" prints; keys are only ever added.
type Report struct {
	// Healthy: nobody needs to do anything. Complaints say what there is
	// otherwise.
	Healthy    bool     `json:"healthy"`
	Complaints []string `json:"complaints,omitempty"`

	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Time is when the report was made.
	Time time.Time `json:"time"`
	// ConfigFile is empty where the settings are flags and variables.
	ConfigFile string `json:"config_file,omitempty"`
	Endpoint   string `json:"endpoint"`
	TokenFile  string `json:"token_file"`

	Certificate     *Certificate     `json:"certificate,omitempty"`
	CredentialsFile *CredentialsFile `json:"credentials_file,omitempty"`
	Users           []User           `json:"users"`
}

// Certificate is the agent's.
type Certificate struct {
	client.Certificate
	Error *Trouble `json:"error,omitempty"`
}

// CredentialsFile is the shared-credentials file.
type CredentialsFile struct {
	Path string `json:"path"`
	// Written is when it was last found or made as it should be.
	Written time.Time `json:"written,omitzero"`
	// Error is what keeps it from being written now.
	Error *Trouble `json:"error,omitempty"`
}

// User is one user's stream.
type User struct {
	Login     string `json:"login"`
	Connected bool   `json:"connected"`
	// Since is when the stream began or ended.
	Since    time.Time `json:"since,omitzero"`
	Broker   string    `json:"broker,omitempty"`
	Tenant   string    `json:"tenant,omitempty"`
	Agent    string    `json:"agent,omitempty"`
	StreamID string    `json:"stream_id,omitempty"`
	// Error is why there is no stream now; the next attempt is at RetryTime.
	Error     *Trouble  `json:"error,omitempty"`
	RetryTime time.Time `json:"retry_time,omitzero"`
	// LastError is what last went wrong with it, which may be over.
	LastError *Trouble `json:"last_error,omitempty"`
	// ClockAhead is how many seconds this machine's clock is ahead of the
	// broker's.
	ClockAhead int     `json:"clock_ahead_seconds"`
	Grants     []Grant `json:"grants"`
}

// Grant is what is held of one grant.
type Grant struct {
	Name string `json:"name"`
	// State is one of the states above.
	State string `json:"state"`
	// SecondsLeft is how long the credential is good for; 0 where there is none.
	SecondsLeft int       `json:"seconds_left"`
	Expires     time.Time `json:"expires,omitzero"`
	// Renewed is when the last credential arrived. Renewals counts them since
	// the agent started.
	Renewed     time.Time `json:"renewed,omitzero"`
	Renewals    int       `json:"renewals"`
	AccessKeyID string    `json:"access_key_id,omitempty"`
	Target      string    `json:"target,omitempty"`
	Access      string    `json:"access,omitempty"`
	Profile     string    `json:"profile,omitempty"`
	// Error is why there is none, or why it cannot be renewed.
	Error *Trouble `json:"error,omitempty"`
	// LastError is what last went wrong with it, which may be over.
	LastError *Trouble `json:"last_error,omitempty"`
	// Hook is how the hook's last run for it ended.
	Hook *HookRun `json:"hook,omitempty"`

	life time.Duration
}

// HookRun is how a hook ended.
type HookRun struct {
	Event  string    `json:"event"`
	Time   time.Time `json:"time"`
	Millis int64     `json:"took_milliseconds"`
	// Error is what went wrong; empty: nothing.
	Error string `json:"error,omitempty"`
}

// Trouble is something that went wrong.
type Trouble struct {
	// Reason is the broker's, empty where no broker spoke.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message"`
	// Transient: waiting may help.
	Transient bool      `json:"transient"`
	Time      time.Time `json:"time,omitzero"`
}

// String gives the reason and the message.
func (t *Trouble) String() string {
	if t.Reason == "" {
		return t.Message
	}
	return t.Reason + ": " + t.Message
}

// newTrouble translates an error; nil for none.
func newTrouble(err error, at time.Time) *Trouble {
	if err == nil {
		return nil
	}
	t := &Trouble{Message: err.Error(), Transient: true, Time: at.UTC()}
	var cause *client.Error
	if errors.As(err, &cause) {
		t.Reason, t.Message, t.Transient = string(cause.Reason), cause.Message, cause.Transient
	}
	return t
}

func newCertificate(s client.Status) *Certificate {
	return &Certificate{Certificate: s.Certificate, Error: newTrouble(s.CertificateErr, time.Time{})}
}

func newUser(login string, s client.Status) User {
	return User{
		Login: login, Connected: s.Connected, Since: s.Since.UTC(), Broker: s.Broker,
		Tenant: s.Identity.Tenant, Agent: s.Identity.Agent, StreamID: s.StreamID,
		Error: newTrouble(s.Err, s.Since), RetryTime: s.RetryTime.UTC(), ClockAhead: int(s.Skew / time.Second),
		Grants: []Grant{},
	}
}

func newGrant(s client.GrantStatus, now time.Time) Grant {
	g := Grant{Name: s.Grant, State: StateGood, Error: newTrouble(s.Err, time.Time{})}
	switch {
	case errors.Is(s.Err, client.ErrRevoked):
		g.State = StateRevoked
	case errors.Is(s.Err, client.ErrExpired):
		g.State = StateExpired
	case s.Credential.Expires.IsZero():
		g.State = StateWaiting
	case s.Err != nil:
		g.State = StateAtRisk
	}
	if c := s.Credential; !c.Expires.IsZero() {
		g.SecondsLeft, g.Expires = max(0, int(c.Expires.Sub(now)/time.Second)), c.Expires.UTC()
		g.AccessKeyID, g.Target, g.Access = c.AccessKeyID, c.Target.String(), c.Access
		g.life = c.Expires.Sub(c.Issued)
	}
	return g
}

func newHookRun(o hook.Outcome, ran bool) *HookRun {
	if !ran {
		return nil
	}
	r := &HookRun{Event: o.Kind, Time: o.Time.UTC(), Millis: o.Took.Milliseconds()}
	if o.Err != nil {
		r.Error = o.Err.Error()
	}
	return r
}

// judge says whether anybody needs to do anything, and what about.
func (r *Report) judge() {
	complain := func(format string, args ...any) { r.Complaints = append(r.Complaints, fmt.Sprintf(format, args...)) }
	for _, u := range r.Users {
		switch {
		case u.Error != nil && !u.Error.Transient:
			complain("%s: %s", u.Login, u.Error)
		case len(u.Grants) == 0 && u.Connected:
			complain("%s: the user has no grant: ask the provider", u.Login)
		case len(u.Grants) == 0 && u.Error != nil:
			complain("%s: %s", u.Login, u.Error)
		case len(u.Grants) == 0:
			complain("%s: not connected yet", u.Login)
		}
		if skew := time.Duration(u.ClockAhead) * time.Second; skew.Abs() > mostSkew {
			complain("this machine's clock is %s the broker's: correct it, or S3 refuses requests", aheadOf(skew))
		}
		for _, g := range u.Grants {
			if text := g.complaint(); text != "" {
				complain("%s: grant %s: %s", u.Login, g.Name, text)
			}
		}
	}
	if r.Certificate != nil && r.Certificate.Error != nil {
		complain("certificate: %s", r.Certificate.Error)
	}
	if r.CredentialsFile != nil && r.CredentialsFile.Error != nil {
		complain("%s", r.CredentialsFile.Error)
	}
	r.Healthy = len(r.Complaints) == 0
}

// complaint says what is wrong with a grant; empty: nothing. A broker that is away
// is no matter as long as enough of the credential's life is left.
func (g Grant) complaint() string {
	switch {
	case g.SecondsLeft == 0 && g.Error != nil:
		return g.Error.String()
	case g.SecondsLeft == 0:
		return g.State
	case g.Error != nil && !g.Error.Transient:
		return g.Error.String()
	case g.SecondsLeft < int(leastPart*g.life.Seconds()) && g.Error != nil:
		return fmt.Sprintf("%d seconds left and not renewed: %s", g.SecondsLeft, g.Error)
	case g.SecondsLeft < int(leastPart*g.life.Seconds()):
		return fmt.Sprintf("%d seconds left and not renewed", g.SecondsLeft)
	case g.Hook != nil && g.Hook.Error != "":
		return "the hook failed: " + g.Hook.Error
	}
	return ""
}

func aheadOf(skew time.Duration) string {
	if skew < 0 {
		return (-skew).String() + " behind"
	}
	return skew.String() + " ahead of"
}
