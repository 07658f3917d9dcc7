package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/stokerd/stoker/server"
)

type storageCommands struct {
	Backup backupCommand `cmd:"" help:"Write what the SQLite database holds now into a new file, while the broker runs."`
	Copy   copyCommand   `cmd:"" help:"Copy everything from one storage to another, empty one. Stop all brokers first."`
}

type backupCommand struct {
	Config string `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker."`
	Out    string `required:"" placeholder:"FILE" help:"The new file; the encryption key is not in it."`
}

func (c *backupCommand) Run(ctx context.Context, out io.Writer) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	if err := server.BackUpStorage(ctx, config, c.Out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "backed up to %s; keep the encryption key elsewhere\n", c.Out)
	return err
}

type copyCommand struct {
	From string `required:"" placeholder:"BACKEND" help:"sqlite:PATH, or a postgres://... connection string."`
	To   string `required:"" placeholder:"BACKEND" help:"The same; it must be empty."`
}

func (c *copyCommand) Run(ctx context.Context, out io.Writer) error {
	from, err := backend(c.From)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	to, err := backend(c.To)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	tables, err := server.CopyStorage(ctx, from, to, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	for _, t := range tables {
		_, _ = fmt.Fprintf(out, "%8d  %s\n", t.Rows, t.Table)
	}
	_, _ = fmt.Fprintln(out, "copied; now change storage in the configuration and start the brokers")
	return nil
}

// backend reads a flag. The error never repeats it: it may hold a password.
func backend(text string) (server.StorageConfig, error) {
	if path, ok := strings.CutPrefix(text, "sqlite:"); ok && path != "" {
		return server.StorageConfig{SQLite: path}, nil
	}
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return server.StorageConfig{Postgres: text}, nil
	}
	return server.StorageConfig{}, fmt.Errorf("want sqlite:PATH or postgres://USER@HOST/DATABASE")
}
