package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/config"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/hook"
	"github.com/stokerd/stoker/internal/coredump"
)

// gcPercent is how much garbage the agent keeps beside what it needs, in percent.
// It allocates little, so that collecting more often costs nothing, and it is a
// guest on every machine.
const gcPercent = 50

// runCommand is the agent that stays.
type runCommand struct {
	connection
	logging
	Grant           []string          `short:"g" env:"STOKER_GRANT" sep:"," placeholder:"NAME" help:"Grant to hold. Without it, all of the user's."`
	Listen          string            `env:"STOKER_LISTEN" placeholder:"ADDRESS" help:"Loopback address of the endpoint (${listen})."`
	TokenFile       string            `env:"STOKER_TOKEN_FILE" placeholder:"FILE" help:"File with the endpoint's token, made if need be (${token_file})."`
	Socket          string            `env:"STOKER_SOCKET" placeholder:"PLACE" help:"Socket or pipe for stoker-agent's own subcommands (${socket})."`
	CredentialsFile string            `env:"STOKER_CREDENTIALS_FILE" placeholder:"FILE" help:"Shared-credentials file to keep profiles in too, such as ~/.aws/credentials."`
	Profile         map[string]string `placeholder:"GRANT=NAME" help:"Profile of a grant in that file; without it stoker-GRANT."`
	IMDS            string            `name:"imds" env:"STOKER_IMDS" placeholder:"ADDRESS" help:"Loopback address to serve one grant on like EC2's metadata service, to every user of this machine."`
	IMDSGrant       string            `name:"imds-grant" env:"STOKER_IMDS_GRANT" placeholder:"NAME" help:"Grant that is served there; without it the only one."`
	Renew           bool              `env:"STOKER_RENEW" default:"true" negatable:"" help:"Renew the agent's certificate in good time and replace its files."`
}

// Help implements kong's interface for more help.
func (runCommand) Help() string {
	return `It prints what to set for tools to use the endpoint. The AWS CLI and SDKs, boto3,
restic, kopia and rclone (with env_auth) refresh from it; while the broker is away
it answers with the last good credential until that expires.

Profiles in a shared-credentials file are second best: the format knows no expiry,
and most long-running tools keep the keys that they read first. restic reads it
again for each request.

Several users, a hook and all other settings are in a configuration file; see
docs/agent.md. With one, only the flags for the log count beside it.`
}

// Run implements the command.
func (c runCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	s, err := c.settings(ctx, to, to.err)
	if err != nil {
		return err
	}
	return serve(ctx, s, func(a *agent.Agent) error { return a.Advice(to.out, setVariable, setFromFile) })
}

// serve runs an agent until ctx ends. opened is called once it serves.
func serve(ctx context.Context, s agent.Settings, opened func(*agent.Agent) error) error {
	// Credentials, and at times a password, are in memory.
	if err := coredump.Forbid(); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	a, err := agent.Open(ctx, s)
	if err != nil {
		return err
	}
	if err := opened(a); err != nil {
		return errors.Join(err, a.Close())
	}
	<-ctx.Done()
	s.Log.Info("stopping")
	return a.Close()
}

// settings are the file's, or the flags'. Logs go to w.
func (c runCommand) settings(ctx context.Context, to *surroundings, w io.Writer) (agent.Settings, error) {
	f, err := c.file()
	if err != nil {
		return agent.Settings{}, err
	}
	if f != nil {
		if err := c.beside(); err != nil {
			return agent.Settings{}, err
		}
		return c.fromFile(ctx, f, to, w)
	}
	log, err := c.logger(w, slog.LevelInfo)
	if err != nil {
		return agent.Settings{}, err
	}
	one, err := c.config(ctx, to, log, true)
	if err != nil {
		return agent.Settings{}, err
	}
	one.Grants, one.Renew = c.Grant, c.Renew
	profiles, err := c.profiles()
	if err != nil {
		return agent.Settings{}, err
	}
	if c.IMDSGrant != "" && c.IMDS == "" {
		return agent.Settings{}, errors.New("--imds-grant needs --imds")
	}
	return agent.Settings{
		Users: []client.Config{one}, Listen: or(c.Listen, config.DefaultListen),
		TokenFile: or(c.TokenFile, defaultPlace("token")), Socket: or(c.Socket, defaultSocket()),
		CredentialsFile: c.CredentialsFile, Profiles: profiles,
		IMDS: c.IMDS, IMDSGrant: c.IMDSGrant, Log: log,
	}, nil
}

// or gives a text, or another where it is empty.
func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// beside refuses flags that a configuration file has keys for: whoever sets both
// would have to know which one counts.
func (c runCommand) beside() error {
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{c.CA != "", "--ca (STOKER_CA)"}, {c.Cert != "", "--cert (STOKER_CERT)"}, {c.Key != "", "--key (STOKER_KEY)"},
		{c.ServerName != "", "--server-name (STOKER_SERVER_NAME)"}, {c.Login != "", "--login (STOKER_LOGIN)"},
		{c.PasswordFile != "", "--password-file (STOKER_PASSWORD_FILE)"}, {len(c.Grant) > 0, "--grant (STOKER_GRANT)"},
		{c.Listen != "", "--listen (STOKER_LISTEN)"}, {c.TokenFile != "", "--token-file (STOKER_TOKEN_FILE)"},
		{c.Socket != "", "--socket (STOKER_SOCKET)"}, {c.CredentialsFile != "", "--credentials-file (STOKER_CREDENTIALS_FILE)"},
		{len(c.Profile) > 0, "--profile"}, {c.IMDS != "", "--imds (STOKER_IMDS)"}, {!c.Renew, "--no-renew (STOKER_RENEW)"},
	} {
		if flag.set {
			return fmt.Errorf("%s is set beside a configuration file: settings come from the one or the other", flag.name)
		}
	}
	return nil
}

// fromFile turns a configuration file into settings, reporting all of its problems
// at once.
func (c runCommand) fromFile(ctx context.Context, f *config.File, to *surroundings, w io.Writer) (agent.Settings, error) {
	log, err := c.logging.over(f.Log).logger(w, slog.LevelInfo)
	if err != nil {
		return agent.Settings{}, errors.Join(f.Err(), err)
	}
	s := agent.Settings{
		Listen: f.Listen, TokenFile: or(f.TokenFile, defaultPlace("token")), Socket: or(f.Socket, defaultSocket()),
		CredentialsFile: f.CredentialsFile, Profiles: f.ProfileOf(), ConfigFile: f.Path, Log: log,
	}
	for _, login := range f.Logins() {
		user := configOf(ctx, f, login, to.keyring, log)
		user.Grants, user.Renew = f.Users[login].Grants, *f.Renew
		s.Users = append(s.Users, user)
	}
	s.Consumers = make(map[string]agent.Consumer)
	for name, c := range f.Consumers {
		s.Consumers[name] = agent.Consumer{TokenFile: c.TokenFile, Grants: c.Grants}
	}
	if f.Hook != nil {
		s.Hook = &hook.Config{
			Command: f.Hook.Command, Timeout: f.Hook.Timeout, Environment: hook.Inherited(os.Environ()), Socket: s.Socket,
		}
	}
	if f.IMDS != nil {
		s.IMDS, s.IMDSGrant = f.IMDS.Listen, f.IMDS.Grant
	}
	return s, f.Err()
}

// over gives the flags, and where they are not set what the file says.
func (l logging) over(file config.LogConfig) logging {
	return logging{LogLevel: or(l.LogLevel, file.Level), LogFormat: or(l.LogFormat, file.Format)}
}

// profiles gives the profile of each grant in the shared-credentials file.
func (c runCommand) profiles() (map[string]string, error) {
	if c.CredentialsFile == "" {
		if len(c.Profile) > 0 {
			return nil, errors.New("--profile needs --credentials-file")
		}
		return nil, nil
	}
	names := make(map[string]string)
	for _, grant := range c.Grant {
		names[grant] = "stoker-" + grant
	}
	for grant, name := range c.Profile {
		if _, held := names[grant]; !held && len(c.Grant) > 0 {
			return nil, fmt.Errorf("--profile: grant %s is not held: name it with --grant", grant)
		}
		names[grant] = name
	}
	if len(names) == 0 {
		return nil, errors.New("--credentials-file: name the grants with --grant or --profile")
	}
	_, err := delivery.NewSharedFile(c.CredentialsFile, names)
	return names, err
}
