package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/config"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/planted"
	"github.com/stokerd/stoker/internal/version"
)

const (
	// passwordVariable has the password, for whoever has no better place. There is
	// no flag: every user of a machine can see a process's arguments.
	passwordVariable = "STOKER_PASSWORD"
	// passwordCredential is the credential of systemd that is the password where
	// the settings are flags.
	passwordCredential = "password"
)

// connection are the flags that say which broker to ask, as whom: in a file, or
// one by one.
type connection struct {
	Config       string   `env:"STOKER_CONFIG" placeholder:"FILE" help:"Configuration file, in place of the flags below. Without it and without --broker, the user's own or the machine's (${config_places})."`
	Broker       []string `env:"STOKER_BROKER" sep:"," placeholder:"HOST:PORT" help:"Broker to connect to. Several are tried in order."`
	CA           string   `name:"ca" env:"STOKER_CA" placeholder:"FILE" help:"Authority (PEM) that signed the broker's certificate. Without it, the system's."`
	Cert         string   `env:"STOKER_CERT" placeholder:"FILE" help:"This agent's certificate (PEM)."`
	Key          string   `env:"STOKER_KEY" placeholder:"FILE" help:"The certificate's key (PEM)."`
	ServerName   string   `env:"STOKER_SERVER_NAME" placeholder:"NAME" help:"Name in the broker's certificate, if it is not the host's."`
	Login        string   `env:"STOKER_LOGIN" placeholder:"LOGIN@TENANT" help:"User to log in as. With a configuration file of several users, which of them."`
	PasswordFile string   `env:"STOKER_PASSWORD_FILE" placeholder:"FILE" help:"File with the user's password. Without it, the password comes from $$STOKER_PASSWORD, systemd's credential \"password\", the keyring, or is asked for on the terminal."`
}

// logging are the flags that say what is logged. Logs go to standard error.
type logging struct {
	LogLevel  string `env:"STOKER_LOG_LEVEL" enum:"debug,info,warn,error," default:"" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error."`
	LogFormat string `env:"STOKER_LOG_FORMAT" enum:"text,json," default:"" placeholder:"FORMAT" help:"Log format: text or json."`
}

// logger makes a logger; least is the level where no flag says one.
func (l logging) logger(w io.Writer, least slog.Level) (*slog.Logger, error) {
	if l.LogLevel != "" {
		if err := least.UnmarshalText([]byte(l.LogLevel)); err != nil {
			return nil, fmt.Errorf("--log-level: %w", err)
		}
	}
	options := &slog.HandlerOptions{Level: least}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// file reads the configuration file that is named, or where no flag names a broker
// either, one of the usual places. Nil: there is none, and flags count. What is
// wrong with it is in its Err.
func (c connection) file() (*config.File, error) {
	switch {
	case c.Config != "" && len(c.Broker) > 0:
		return nil, errors.New("both --config and --broker are set (STOKER_CONFIG and STOKER_BROKER count): settings come from a file or from flags")
	case c.Config != "":
		return config.Read(c.Config)
	case len(c.Broker) > 0:
		return nil, nil
	}
	for _, place := range configPlaces() {
		if _, err := os.Stat(place); err != nil {
			continue
		}
		if err := planted.Check(place); err != nil {
			return nil, err
		}
		return config.Read(place)
	}
	return nil, nil
}

// config gives the client's configuration of one user, reporting all problems at
// once. A prompt, if one is needed and allowed, happens here. The grants decide
// which user of a file it is, where no flag does.
func (c connection) config(ctx context.Context, to *surroundings, log *slog.Logger, prompt bool, grants ...string) (client.Config, error) {
	f, err := c.file()
	if err != nil {
		return client.Config{}, err
	}
	if f == nil {
		return c.fromFlags(ctx, to, log, prompt)
	}
	if err := f.Err(); err != nil {
		return client.Config{}, err
	}
	login, err := c.user(f, grants)
	if err != nil {
		return client.Config{}, err
	}
	found := configOf(ctx, f, login, to.keyring, log)
	return found, f.Err()
}

// user chooses one of a file's users.
func (c connection) user(f *config.File, grants []string) (string, error) {
	logins := f.Logins()
	if c.Login != "" {
		if _, known := f.Users[c.Login]; !known {
			return "", fmt.Errorf("--login: %s has no user %s", f.Path, c.Login)
		}
		return c.Login, nil
	}
	for _, login := range logins {
		if len(grants) > 0 && subset(grants, f.Users[login].Grants) {
			return login, nil
		}
	}
	if len(logins) == 1 {
		return logins[0], nil
	}
	return "", fmt.Errorf("%s has several users: choose one with --login (%s)", f.Path, strings.Join(logins, ", "))
}

func subset(some, all []string) bool {
	known := make(map[string]bool)
	for _, a := range all {
		known[a] = true
	}
	for _, s := range some {
		if !known[s] {
			return false
		}
	}
	return true
}

// configOf gives the client's configuration of a file's user. Problems with the
// password's place are reported to the file.
func configOf(ctx context.Context, f *config.File, login string, keyring password.Keyring, log *slog.Logger) client.Config {
	source, key, err := passwordOf(ctx, f.Users[login], login, keyring)
	if err != nil {
		f.Problem("users."+login+"."+key, "%v", err)
	}
	found := targetOf(f, login, log)
	found.Password = source
	return found
}

// targetOf is the broker and the user in a file, without a password.
func targetOf(f *config.File, login string, log *slog.Logger) client.Config {
	return client.Config{
		Brokers: f.Brokers, CAFile: f.CA, CertFile: f.Certificate, KeyFile: f.Key, ServerName: f.ServerName,
		Login: login, Client: clientName(), Logger: log,
	}
}

// passwordOf opens the place of a user's password. An error is about key.
func passwordOf(ctx context.Context, user config.UserConfig, login string, keyring password.Keyring) (source password.Source, key string, err error) {
	switch {
	case user.PasswordFile != "":
		source, err = password.File(user.PasswordFile)
		return source, "password_file", err
	case user.PasswordCredential != "":
		source, err = password.Credential(user.PasswordCredential)
		return source, "password_credential", err
	case user.PasswordKeyring:
		source, err = password.FromKeyring(ctx, keyring, login)
		return source, "password_keyring", err
	}
	return nil, "", nil // which the file complains of itself
}

func clientName() string { return "stoker-agent/" + version.String() }

// fromFlags turns the flags into a client's configuration.
func (c connection) fromFlags(ctx context.Context, to *surroundings, log *slog.Logger, prompt bool) (client.Config, error) {
	problems := c.missing()
	if c.Key != "" {
		if err := password.CheckPrivate(c.Key); err != nil {
			problems = append(problems, fmt.Errorf("key: %w", err))
		}
	}
	var source password.Source
	if len(problems) == 0 {
		var err error
		if source, err = c.password(ctx, to, prompt); err != nil {
			problems = append(problems, err)
		}
	}
	found := c.flagTarget(log)
	found.Password = source
	return found, errors.Join(problems...)
}

// flagTarget is the broker and the user in the flags, without a password.
func (c connection) flagTarget(log *slog.Logger) client.Config {
	return client.Config{
		Brokers: c.Broker, CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, ServerName: c.ServerName,
		Login: c.Login, Client: clientName(), Logger: log,
	}
}

// missing says which flags must be set.
func (c connection) missing() []error {
	var problems []error
	for _, flag := range []struct {
		missing bool
		name    string
	}{
		{len(c.Broker) == 0, "--broker or STOKER_BROKER: the broker's host:port, or --config: a configuration file"},
		{c.Cert == "", "--cert or STOKER_CERT: the file of this agent's certificate"},
		{c.Key == "", "--key or STOKER_KEY: the file of its key"},
		{c.Login == "", "--login or STOKER_LOGIN: the user as login@tenant"},
	} {
		if flag.missing {
			problems = append(problems, errors.New("missing "+flag.name))
		}
	}
	return problems
}

// password finds where the password comes from: the file, the environment, a
// credential of systemd, the keyring, or a person.
func (c connection) password(ctx context.Context, to *surroundings, prompt bool) (password.Source, error) {
	if c.PasswordFile != "" {
		return password.File(c.PasswordFile)
	}
	if text := os.Getenv(passwordVariable); text != "" {
		return password.Fixed(text), nil
	}
	if password.HasCredential(passwordCredential) {
		return password.Credential(passwordCredential)
	}
	if password.Has(ctx, to.keyring, c.Login) {
		return password.FromKeyring(ctx, to.keyring, c.Login)
	}
	if fd := int(os.Stdin.Fd()); prompt && term.IsTerminal(fd) {
		text, err := askSecret(ctx, to.err, fd, "password", "Password of "+c.Login+": ")
		if err != nil {
			return nil, err
		}
		return password.Fixed(text), nil
	}
	return nil, errors.New("no password: set --password-file or STOKER_PASSWORD_FILE to a file with it, or " + passwordVariable + ", or run stoker-agent login")
}

// askSecret reads a secret without showing it. When ctx ends, the terminal shows
// again what is typed.
func askSecret(ctx context.Context, w io.Writer, fd int, what, question string) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	fmt.Fprint(w, question)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		answers <- answer{text, err}
	}()
	defer fmt.Fprintln(w)
	select {
	case a := <-answers:
		if a.err != nil {
			return "", fmt.Errorf("%s: %w", what, a.err)
		}
		if len(a.text) == 0 {
			return "", fmt.Errorf("%s: it is empty", what)
		}
		return string(a.text), nil
	case <-ctx.Done():
		return "", errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}
