package server

import (
	"io"
	"log/slog"
)

// NewLogger makes the broker's logger from its configuration.
func NewLogger(c LogConfig, out io.Writer) *slog.Logger {
	var level slog.Level
	if c.Level != "" {
		// The configuration was checked; an unknown level leaves info.
		_ = level.UnmarshalText([]byte(c.Level))
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(out, options))
	}
	return slog.New(slog.NewJSONHandler(out, options))
}
