package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/stokerd/stoker/server"
)

type keyCommands struct {
	List    keyListCommand    `cmd:"" help:"List the keys that the broker keeps, without the keys."`
	Reseal  keyResealCommand  `cmd:"" help:"Encrypt the keys that the broker keeps under another key. Stop all brokers first."`
	Replace keyReplaceCommand `cmd:"" help:"Replace a key that became known."`
	Discard keyDiscardCommand `cmd:"" help:"Delete the keys that cannot be opened, because the encryption key is lost. Stop all brokers first."`
}

type keyListCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker."`
}

func (c *keyListCommand) Run(ctx context.Context, out io.Writer) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	keys, err := server.ListKeys(ctx, config)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tID\tMADE\tRETIRED")
	for _, k := range keys {
		retired := "-"
		if !k.Retired.IsZero() {
			retired = k.Retired.UTC().Format(time.DateTime)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.Purpose, k.ID, k.Created.UTC().Format(time.DateTime), retired)
	}
	return table.Flush()
}

type keyResealCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker, with the old key."`
	NewKey string `required:"" placeholder:"FILE" help:"File with the new key: 32 random bytes in base64, as openssl rand -base64 32 makes them."`
}

func (c *keyResealCommand) Run(ctx context.Context, out io.Writer) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	n, err := server.ResealKeys(ctx, config, c.NewKey)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	_, err = fmt.Fprintf(out, "%d keys are encrypted under %s now; put it in the place of the old one and start the brokers\n", n, c.NewKey)
	return err
}

type keyReplaceCommand struct {
	Key    string `arg:"" enum:"tokens,authority" help:"tokens: every session ends and agents log in again. authority: every certificate is void and agents enroll again."`
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker."`
	Yes    bool   `help:"Do it. Without this nothing happens."`
}

func (c *keyReplaceCommand) Run(ctx context.Context, out io.Writer) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	act, then := server.ReplaceTokenKeys, "the keys of access tokens are replaced; agents log in again"
	if c.Key == "authority" {
		act, then = server.ReplaceAuthority, "the authority is replaced; restart the brokers, make operators' and services' certificates anew, and enroll the agents again"
	}
	if !c.Yes {
		if c.Key == "authority" {
			return errors.New("this makes every certificate void, of agents, operators, services and the brokers themselves; add --yes if that is what you want")
		}
		return errors.New("this ends every session, and all agents log in again; add --yes if that is what you want")
	}
	if err := act(ctx, config); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, then)
	return err
}

type keyDiscardCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker, with a new encryption key."`
	Yes    bool   `help:"Do it. Without this nothing happens."`
}

func (c *keyDiscardCommand) Run(ctx context.Context, out io.Writer) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	if !c.Yes {
		return errors.New("this makes every certificate void and ends every session; if the old encryption key is lost for good, add --yes")
	}
	n, err := server.DiscardKeys(ctx, config)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d keys are deleted; start the brokers, make operators' and services' certificates anew, and enroll the agents again\n", n)
	return err
}
