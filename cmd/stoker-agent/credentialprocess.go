package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
)

// credentialProcessCommand answers one question and ends.
type credentialProcessCommand struct {
	connection
	logging
	Grant  string `short:"g" env:"STOKER_GRANT" placeholder:"NAME" help:"Grant to use. Without it, the only one."`
	Socket string `env:"STOKER_SOCKET" placeholder:"PLACE" help:"Socket or pipe of a running agent. Without it, the user's own and then the machine's (${sockets}), and the configuration file's."`
}

// Help implements kong's interface for more help.
func (credentialProcessCommand) Help() string {
	return `For a profile in ~/.aws/config (tools based on minio-go read it from
~/.aws/credentials only, and need a grant named as argument):

  [profile backup]
  credential_process = stoker-agent credential-process --grant photos

It asks the agent that "stoker-agent run" started, and where none is running, the
broker itself, which costs a login each time.`
}

// Run implements the command.
func (c credentialProcessCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	places := socketPlaces()
	if c.Socket != "" {
		places = []string{c.Socket}
	}
	credential, err := ask(ctx, places, func(ctx context.Context, place string) (client.Credential, error) {
		return delivery.AskLocal(ctx, place, c.Grant, 0)
	})
	var refusal delivery.Refusal
	switch {
	case err == nil:
	case errors.Is(err, delivery.ErrNoAgent), errors.As(err, &refusal) && (refusal.Unknown() || refusal.Transient()):
		// None, an agent for other grants, or one that has nothing yet.
		if credential, err = c.instead(ctx, to, err); err != nil {
			return err
		}
	default:
		return err
	}
	return delivery.WriteProcess(to.out, credential)
}

// instead asks the agent of the configuration file, if its socket has another place,
// or the broker where one is configured. away is what the usual agent said.
func (c credentialProcessCommand) instead(ctx context.Context, to *surroundings, away error) (client.Credential, error) {
	f, err := c.file()
	switch {
	case err != nil:
		return client.Credential{}, err
	case f == nil && len(c.Broker) == 0:
		return client.Credential{}, away
	case f != nil && f.Socket != "" && c.Socket == "" && errors.Is(away, delivery.ErrNoAgent):
		credential, err := delivery.AskLocal(ctx, f.Socket, c.Grant, 0)
		if err == nil || !errors.Is(err, delivery.ErrNoAgent) {
			return credential, err
		}
	}
	return c.fetch(ctx, to)
}

// fetch asks the broker.
func (c credentialProcessCommand) fetch(ctx context.Context, to *surroundings) (client.Credential, error) {
	log, err := c.logger(to.err, slog.LevelWarn)
	if err != nil {
		return client.Credential{}, err
	}
	// A tool calls this, so nobody would answer a prompt.
	var grants []string
	if c.Grant != "" {
		grants = []string{c.Grant}
	}
	config, err := c.config(ctx, to, log, false, grants...)
	if err != nil {
		return client.Credential{}, err
	}
	config.Grants = grants
	fetched, err := client.Fetch(ctx, config, 0)
	if err != nil {
		return client.Credential{}, err
	}
	if len(fetched) != 1 {
		return client.Credential{}, fmt.Errorf("the user has %d grants: choose one with --grant", len(fetched))
	}
	return fetched[0], nil
}
