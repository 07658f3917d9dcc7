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
	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/internal/version"
)

// passwordVariable has the password, for whoever has no better place. There is
// no flag: every user of a machine can see a process's arguments.
const passwordVariable = "STOKER_PASSWORD"

// longestPassword bounds, in bytes, what is read of a file with a secret.
const longestPassword = 4 << 10

// connection are the flags that say which broker to ask, as whom.
type connection struct {
	Broker       []string `env:"STOKER_BROKER" sep:"," placeholder:"HOST:PORT" help:"Broker to connect to. Several are tried in order."`
	CA           string   `name:"ca" env:"STOKER_CA" placeholder:"FILE" help:"Authority (PEM) that signed the broker's certificate. Without it, the system's."`
	Cert         string   `env:"STOKER_CERT" placeholder:"FILE" help:"This agent's certificate (PEM)."`
	Key          string   `env:"STOKER_KEY" placeholder:"FILE" help:"The certificate's key (PEM)."`
	ServerName   string   `env:"STOKER_SERVER_NAME" placeholder:"NAME" help:"Name in the broker's certificate, if it is not the host's."`
	Login        string   `env:"STOKER_LOGIN" placeholder:"LOGIN@TENANT" help:"User to log in as."`
	PasswordFile string   `env:"STOKER_PASSWORD_FILE" placeholder:"FILE" help:"File with the user's password. Without it, the password comes from $$STOKER_PASSWORD, or is asked for on the terminal."`
}

// logging are the flags that say what is logged. Logs go to standard error.
type logging struct {
	LogLevel  string `env:"STOKER_LOG_LEVEL" enum:"debug,info,warn,error," default:"" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error."`
	LogFormat string `env:"STOKER_LOG_FORMAT" enum:"text,json" default:"text" help:"Log format: text or json."`
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

// configured says whether any broker is named.
func (c connection) configured() bool { return len(c.Broker) > 0 }

// config turns the flags into a client's configuration, reporting all problems
// at once. A prompt, if one is needed and allowed, happens here.
func (c connection) config(ctx context.Context, to *streams, log *slog.Logger, prompt bool) (client.Config, error) {
	var problems []error
	for _, flag := range []struct {
		missing bool
		name    string
	}{
		{len(c.Broker) == 0, "--broker or STOKER_BROKER: the broker's host:port"},
		{c.Cert == "", "--cert or STOKER_CERT: the file of this agent's certificate"},
		{c.Key == "", "--key or STOKER_KEY: the file of its key"},
		{c.Login == "", "--login or STOKER_LOGIN: the user as login@tenant"},
	} {
		if flag.missing {
			problems = append(problems, errors.New("missing "+flag.name))
		}
	}
	if c.Key != "" {
		info, err := os.Stat(c.Key)
		if err == nil {
			err = delivery.CheckPrivate(c.Key, info)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("key: %w", err))
		}
	}
	var password func(context.Context) (string, error)
	if len(problems) == 0 {
		var err error
		if password, err = c.password(ctx, to, prompt); err != nil {
			problems = append(problems, err)
		}
	}
	return client.Config{
		Brokers:    c.Broker,
		CAFile:     c.CA,
		CertFile:   c.Cert,
		KeyFile:    c.Key,
		ServerName: c.ServerName,
		Login:      c.Login,
		Password:   password,
		Client:     "stoker-agent/" + version.String(),
		Logger:     log,
	}, errors.Join(problems...)
}

// password finds where the password comes from: the file, the environment, or a
// person.
func (c connection) password(ctx context.Context, to *streams, prompt bool) (func(context.Context) (string, error), error) {
	if c.PasswordFile != "" {
		if _, err := readPassword(c.PasswordFile); err != nil {
			return nil, err
		}
		// Read again for each login, so that a changed one is picked up.
		return func(context.Context) (string, error) { return readPassword(c.PasswordFile) }, nil
	}
	if password := os.Getenv(passwordVariable); password != "" {
		return fixed(password), nil
	}
	if fd := int(os.Stdin.Fd()); prompt && term.IsTerminal(fd) {
		password, err := askSecret(ctx, to.err, fd, "password", "Password of "+c.Login+": ")
		if err != nil {
			return nil, err
		}
		return fixed(password), nil
	}
	return nil, errors.New("no password: set --password-file or STOKER_PASSWORD_FILE to a file with it, or " + passwordVariable)
}

func fixed(password string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return password, nil }
}

// readPassword reads the password's file.
func readPassword(file string) (string, error) { return readSecret("password", file) }

// readSecret reads a file that nobody else may read. One newline at its end is not
// part of what is in it.
func readSecret(what, file string) (string, error) {
	text, err := readPrivate(file)
	if err != nil {
		return "", fmt.Errorf("%s file: %w", what, err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("%s file: %s is empty", what, file)
	}
	return secret, nil
}

func readPrivate(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := delivery.CheckPrivate(file, info); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, longestPassword))
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
