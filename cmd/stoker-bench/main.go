// Command stoker-bench measures brokers under the load of thousands of agents,
// and plans capacity from what was measured. See `stoker-bench --help` and
// docs/scale.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/stokerd/stoker/server/bench"
)

type cli struct {
	Run    runCommand    `cmd:"" default:"withargs" help:"Measure, and print a table."`
	Modes  modesCommand  `cmd:"" help:"List what can be measured."`
	Plan   planCommand   `cmd:"" help:"Compute and simulate what so many agents take."`
	Broker brokerCommand `cmd:"" hidden:""`
	Bare   bareCommand   `cmd:"" hidden:""`
	Agents agentsCommand `cmd:"" hidden:""`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	parsed := kong.Parse(&c, kong.Name("stoker-bench"), kong.UsageOnError(),
		kong.Description("Measures Stoker brokers beside bare grpc-go, on loopback, with thousands of simulated agents."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := parsed.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "stoker-bench: %v\n", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run.
	}
}

// brokerCommand is a child of this program: a broker under measurement.
type brokerCommand struct {
	Config  string `arg:""`
	Instant bool
}

func (c *brokerCommand) Run(ctx context.Context) error {
	return bench.Broker{Config: c.Config, Instant: c.Instant}.Run(ctx, os.Stdin, os.Stdout)
}

// bareCommand is a child of this program: bare grpc-go.
type bareCommand struct {
	Dir string `arg:""`
}

func (c *bareCommand) Run(ctx context.Context) error {
	return bench.Bare{Dir: c.Dir}.Run(ctx, os.Stdin, os.Stdout)
}

// agentsCommand is a child of this program: agents.
type agentsCommand struct {
	File string `arg:""`
}

func (c *agentsCommand) Run(ctx context.Context) error {
	return bench.Agents{File: c.File}.Run(ctx, os.Stdin, os.Stdout)
}
