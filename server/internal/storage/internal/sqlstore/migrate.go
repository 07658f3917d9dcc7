package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Migrate brings the database's tables up to date. The options say how
// replicas that start together wait for each other. A database that a newer
// broker has migrated is accepted, with a warning: migrations only add.
func Migrate(ctx context.Context, d Dialect, name goose.Dialect, db *sql.DB, migrations fs.FS, log *slog.Logger, opts ...goose.ProviderOption) error {
	fail := func(doing string, err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", doing, ctx.Err())
		}
		return fmt.Errorf("%w: %s: %s", storage.ErrUnavailable, doing, d.Text(err))
	}
	opts = append([]goose.ProviderOption{goose.WithSlog(log), goose.WithDisableGlobalRegistry(true)}, opts...)
	provider, err := goose.NewProvider(name, db, migrations, opts...)
	if err != nil {
		return fail("prepare migrations", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fail("migrate", err)
	}
	sources := provider.ListSources()
	known := sources[len(sources)-1].Version
	have, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fail("read the version of the tables", err)
	}
	if have > known {
		log.WarnContext(ctx, "a newer broker has migrated this database; upgrade this one soon",
			"tables", have, "known", known)
	}
	return nil
}
