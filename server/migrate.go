package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/stokerd/stoker/server/internal/storage/sqlite"
	"github.com/stokerd/stoker/server/internal/storage/transfer"
)

// CopiedTable says how many rows of a table CopyStorage copied.
type CopiedTable = transfer.Copied

// CopyStorage stores in one backend, which must be empty, all that another
// holds: resources, keys (sealed as they are), the audit trail with its chains.
// It is one transaction: after an error nothing was copied. No broker may run
// on either meanwhile. The encryption key stays the same.
func CopyStorage(ctx context.Context, from, to StorageConfig, log *slog.Logger) (tables []CopiedTable, err error) {
	for which, c := range map[string]StorageConfig{"from": from, "to": to} {
		if (c.SQLite == "") == (c.Postgres == "") {
			return nil, fmt.Errorf("%s: name one backend, sqlite or postgres", which)
		}
	}
	if from.SQLite != "" {
		// Opening would make an empty database.
		if _, err := os.Stat(from.SQLite); err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
	}
	source, err := openStorage(ctx, from, log)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	destination, err := openStorage(ctx, to, log)
	if err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	return transfer.Copy(ctx, source, destination)
}

// BackUpStorage writes what the configuration's SQLite database holds at one
// moment into a new file, whether or not a broker runs. PostgreSQL has tools of
// its own for that.
func BackUpStorage(ctx context.Context, c Config, to string) error {
	if c.Storage.SQLite == "" {
		return errors.New("the configuration names no SQLite database; back PostgreSQL up with pg_dump")
	}
	return sqlite.Backup(ctx, c.Storage.SQLite, to)
}
