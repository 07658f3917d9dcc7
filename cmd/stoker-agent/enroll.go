package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
)

// tokenVariable has the join token, for whoever has no better place. As with
// passwords, there is no flag.
const tokenVariable = "STOKER_JOIN_TOKEN"

// enrollCommand gets a new agent its certificate.
type enrollCommand struct {
	Broker     string `env:"STOKER_ENROLLMENT" required:"" placeholder:"HOST:PORT" help:"The broker's enrollment listener, which is another port than the one for agents."`
	ServerName string `env:"STOKER_SERVER_NAME" placeholder:"NAME" help:"Name in the broker's certificate, if it is not the host's."`
	TokenFile  string `placeholder:"FILE" help:"File with the join token; - is standard input. Without it, the token comes from $$STOKER_JOIN_TOKEN, or is asked for on the terminal."`
	Out        string `required:"" placeholder:"DIR" help:"Directory for agent.pem, agent.key and ca.pem, made if need be."`
	Force      bool   `help:"Replace files that are there already."`
}

// Help implements kong's interface for more help.
func (enrollCommand) Help() string {
	return `The provider makes the token (stokerctl agent invite). It is good once and for a few
minutes, and has in it by what the broker is recognized. The key is made here and
never leaves this machine.`
}

// Run implements the command.
func (c enrollCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	token, err := c.token(ctx, to)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(c.Out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files := client.FilesIn(dir)
	got, err := client.Enroll(ctx, token, client.EnrollConfig{
		Address: c.Broker, ServerName: c.ServerName, Files: files, Replace: c.Force,
	})
	if err != nil {
		if errors.Is(err, client.ErrFileExists) {
			return fmt.Errorf("%w; pass --force to replace it, or choose another --out", err)
		}
		return err
	}
	return c.advise(to.out, got, files)
}

// token finds the join token: in the file, in the environment, or with a person.
func (c enrollCommand) token(ctx context.Context, to *surroundings) (string, error) {
	switch {
	case c.TokenFile == "-":
		text, err := io.ReadAll(io.LimitReader(os.Stdin, longestSecret))
		return strings.TrimSpace(string(text)), err
	case c.TokenFile != "":
		text, err := password.ReadSecret("join token", c.TokenFile)
		return strings.TrimSpace(text), err
	}
	if token := os.Getenv(tokenVariable); token != "" {
		return strings.TrimSpace(token), nil
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		token, err := askSecret(ctx, to.err, fd, "join token", "Join token: ")
		return strings.TrimSpace(token), err
	}
	return "", errors.New("no join token: set --token-file to a file with it (- is standard input), or " + tokenVariable)
}

// advise prints what became of it, and what to do next.
func (c enrollCommand) advise(w io.Writer, got client.Certificate, files client.Files) error {
	tenant := "TENANT"
	if id, err := url.Parse(got.SPIFFEID); err == nil {
		if parts := strings.Split(id.Path, "/"); len(parts) == 5 {
			tenant = parts[2]
		}
	}
	host, _, err := net.SplitHostPort(c.Broker)
	if err != nil {
		return err
	}
	lines := []string{
		"enrolled as " + got.SPIFFEID,
		"certificate " + got.Serial + " until " + stamp(got.Expires) + `; "stoker-agent run" renews it from ` + stamp(got.RenewTime),
		"",
		"# The join token is used up: remove it. Next, with the port for agents, a login and",
		"# its password from the provider:",
		setVariable("STOKER_BROKER", net.JoinHostPort(host, "PORT")),
		setVariable("STOKER_CA", files.Authority),
		setVariable("STOKER_CERT", files.Certificate),
		setVariable("STOKER_KEY", files.Key),
	}
	if c.ServerName != "" {
		lines = append(lines, setVariable("STOKER_SERVER_NAME", c.ServerName))
	}
	lines = append(lines,
		setVariable("STOKER_LOGIN", "LOGIN@"+tenant),
		setVariable("STOKER_PASSWORD_FILE", "FILE"),
		"stoker-agent whoami",
		"stoker-agent run",
	)
	_, err = fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
