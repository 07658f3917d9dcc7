package main

import (
	"context"
	"fmt"
	"os"

	"github.com/stokerd/stoker/server"
)

type serveCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file."`
}

func (c *serveCommand) Run(ctx context.Context) error {
	if err := forbidCoreDumps(); err != nil {
		return err
	}
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	broker, err := server.New(ctx, config, server.NewLogger(config.Log, os.Stderr))
	if err != nil {
		return err
	}
	return broker.Run(ctx)
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
