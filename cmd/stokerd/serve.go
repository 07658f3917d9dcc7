package main

import (
	"context"
	"fmt"
	"os"

	"github.com/stokerd/stoker/internal/coredump"
	"github.com/stokerd/stoker/server"
)

type serveCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file."`
}

func (c *serveCommand) Run(ctx context.Context) error {
	// Keys and passwords are in memory.
	if err := coredump.Forbid(); err != nil {
		return err
	}
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	log := server.NewLogger(config.Log, os.Stderr)
	broker, err := server.New(ctx, config, log)
	if err != nil {
		return err
	}
	// From here on, and not before: a signal has to find who acts on it.
	asked, stop := reloads()
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-asked:
				if err := c.reload(ctx, broker); err != nil {
					log.ErrorContext(ctx, "reading the configuration again failed", "error", err)
				}
			case <-done:
				return
			}
		}
	}()
	return broker.Run(ctx)
}

// reload has the broker take over what it can of the file as it is now.
func (c *serveCommand) reload(ctx context.Context, broker *server.Server) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return fmt.Errorf("the broker goes on with what it has: %w", err)
	}
	return broker.Reload(ctx, config)
}

type checkCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file."`
}

func (c *checkCommand) Run() error {
	if _, err := server.Load(c.Config); err != nil {
		return err
	}
	fmt.Printf("%s is fine\n", c.Config)
	return nil
}
