package main

import (
	"context"
	"os"
	"time"

	"github.com/stokerd/stoker/server/dev"
)

type devCommand struct {
	Dir      string        `default:"stoker-dev" help:"Directory for keys, certificates and the database; removed at the end."`
	Listen   string        `default:"127.0.0.1:8443" help:"Address of the broker, on loopback."`
	Lifetime time.Duration `default:"1m" help:"How long each credential lives, from 3s."`
	Method   string        `default:"federation_token" enum:"federation_token,assume_role" help:"How the broker asks the local STS (${enum})."`
	Verbose  bool          `short:"v" help:"Print the broker's log too."`
}

func (c *devCommand) Run(ctx context.Context) error {
	return dev.Run(ctx, dev.Options{
		Dir: c.Dir, Listen: c.Listen, Lifetime: c.Lifetime, Method: c.Method, Verbose: c.Verbose, Out: os.Stdout,
	})
}
