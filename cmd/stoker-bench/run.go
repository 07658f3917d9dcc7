package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stokerd/stoker/server/bench"
)

type runCommand struct {
	Modes    []string      `arg:"" optional:"" help:"What to measure, see stoker-bench modes; default: all but supply, fleet and soak."`
	Agents   int           `default:"10000" help:"How many agents. The machine's limit of descriptors in a process bounds it."`
	Rounds   int           `default:"3" help:"How often what varies is measured; the median counts."`
	Lifetime time.Duration `default:"1m" help:"Lifetime of credentials where hours are compressed."`
	Soak     time.Duration `default:"5m" help:"How long soak lasts."`
	Postgres string        `placeholder:"DSN" help:"Empty PostgreSQL database for failover; default: a server of its own, if one is installed."`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write the report as JSON too."`
	Profiles string        `placeholder:"DIR" type:"existingdir" help:"Write profiles of the broker."`
	Dir      string        `placeholder:"DIR" type:"existingdir" help:"Where databases and logs go; default: the system's temporary directory."`
	Strict   bool          `help:"Fail if anything was broken that must hold on any machine, however slow."`
	Keep     bool          `help:"Keep databases and logs."`
}

func (c *runCommand) Run(ctx context.Context) error {
	modes := c.Modes
	if len(modes) == 0 {
		names, _ := bench.Modes()
		modes = slices.DeleteFunc(names, func(n string) bool { return n == "soak" || n == "supply" || n == "fleet" })
	}
	report, err := bench.Run(ctx, bench.Options{
		Modes: modes, Agents: c.Agents, Rounds: c.Rounds, Lifetime: c.Lifetime, Soak: c.Soak,
		Dir: c.Dir, Keep: c.Keep, Profiles: c.Profiles, Postgres: c.Postgres, Progress: os.Stderr,
		Child: func(kind, argument string, instant bool) []string {
			args := []string{kind, argument}
			if instant {
				args = append(args, "--instant")
			}
			return args
		},
	})
	if report == nil {
		return err
	}
	err = errors.Join(err, report.WriteTable(os.Stdout))
	if c.JSON != "" {
		err = errors.Join(err, writeJSON(report, c.JSON))
	}
	if c.Strict {
		for _, m := range report.Broken() {
			err = errors.Join(err, fmt.Errorf("%s: %s must not happen", m.Mode, m.Name))
		}
	}
	return err
}

func writeJSON(r *bench.Report, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteJSON(file), file.Close())
}

type modesCommand struct{}

func (modesCommand) Run() error {
	names, help := bench.Modes()
	for i, name := range names {
		fmt.Printf("%-10s %s\n", name, strings.TrimSpace(help[i]))
	}
	return nil
}
