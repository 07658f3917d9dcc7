package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
)

// longestSecret bounds, in bytes, what is read from standard input.
const longestSecret = 4 << 10

// loginCommand puts a password into the keyring.
type loginCommand struct {
	connection
	logging
	Check bool `default:"true" negatable:"" help:"Ask the broker first whether the password is right."`
}

// Help implements kong's interface for more help.
func (loginCommand) Help() string {
	return `The password is asked for on the terminal, or read from --password-file (- is
standard input). The keyring is that of the user who runs this: Keychain on macOS,
the Credential Manager on Windows, the Secret Service elsewhere. "stoker-agent run"
of the same user finds it there; in a configuration file, set password_keyring.`
}

// Run implements the command.
func (c loginCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	log, err := c.logger(to.err, slog.LevelWarn)
	if err != nil {
		return err
	}
	config, err := c.target(log)
	if err != nil {
		return err
	}
	secret, err := c.secret(ctx, to, config.Login)
	if err != nil {
		return err
	}
	if c.Check {
		config.Password = password.Fixed(secret)
		if _, _, err := client.WhoAmI(ctx, config); err != nil {
			return fmt.Errorf("nothing was stored: %w", err)
		}
	}
	if err := to.keyring.Set(config.Login, secret); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	_, err = fmt.Fprintf(to.out, "the keyring has the password of %s\n", config.Login)
	return err
}

// target is the broker and the user, without a password.
func (c connection) target(log *slog.Logger) (client.Config, error) {
	f, err := c.file()
	if err != nil {
		return client.Config{}, err
	}
	if f == nil {
		return c.flagTarget(log), errors.Join(c.missing()...)
	}
	if err := f.Err(); err != nil {
		return client.Config{}, err
	}
	login, err := c.user(f, nil)
	return targetOf(f, login, log), err
}

// secret gets the password from the file, standard input or a person.
func (c loginCommand) secret(ctx context.Context, to *surroundings, login string) (string, error) {
	switch fd := int(os.Stdin.Fd()); {
	case c.PasswordFile == "-":
		text, err := io.ReadAll(io.LimitReader(os.Stdin, longestSecret))
		secret := strings.TrimRight(string(text), "\r\n")
		if err == nil && secret == "" {
			err = errors.New("standard input is empty")
		}
		return secret, err
	case c.PasswordFile != "":
		return password.ReadSecret("password", c.PasswordFile)
	case term.IsTerminal(fd):
		return askSecret(ctx, to.err, fd, "password", "Password of "+login+": ")
	}
	return "", errors.New("no password: there is no terminal to ask on; set --password-file (- is standard input)")
}

// logoutCommand takes a password out of the keyring.
type logoutCommand struct {
	Login string `env:"STOKER_LOGIN" required:"" placeholder:"LOGIN@TENANT" help:"User whose password it is."`
}

// Run implements the command.
func (c logoutCommand) Run(to *surroundings) error {
	if err := to.keyring.Delete(c.Login); err != nil {
		return fmt.Errorf("keyring: %s: %w", c.Login, err)
	}
	_, err := fmt.Fprintf(to.out, "the keyring has no password of %s any more\n", c.Login)
	return err
}
