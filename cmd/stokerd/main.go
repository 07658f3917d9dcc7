// Command stokerd is the Stoker broker. See `stokerd --help`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Serve       serveCommand       `cmd:"" help:"Run the broker."`
	Dev         devCommand         `cmd:"" help:"Run a throw-away broker with a local STS: no AWS account, nothing to install. INSECURE."`
	Check       checkCommand       `cmd:"" help:"Check a configuration file and say everything that is wrong with it."`
	Certificate certificateCommand `cmd:"" help:"Make a certificate for an operator or an internal service with the built-in authority."`
	Key         keyCommands        `cmd:"" help:"Rotate the keys that a broker keeps."`
	Storage     storageCommands    `cmd:"" help:"Back up what a broker keeps, or move it to another backend."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	parsed := kong.Parse(&c, kong.Name("stokerd"), kong.UsageOnError(),
		kong.Description("The Stoker broker: keeps backup agents supplied with short-lived AWS credentials."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(os.Stdout, (*io.Writer)(nil)))
	if err := parsed.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "stokerd: %v\n", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run.
	}
}
