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
	Copy copyCommand `cmd:"" help:"Copy everything from one storage to another, empty one. Stop all brokers first."`
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
