package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

//go:embed migrations/*.sql
var embedded embed.FS

// applicationID marks the broker's files ("STKR"), so that the file of another
// program is not taken over by mistake.
const applicationID = 0x53544b52

// maxJournal is the size in bytes that the write-ahead log is cut back to
// after a long reader made it grow.
const maxJournal = 64 << 20

// Store is a database in a file.
type Store struct{ *sqlstore.Store }

// Open opens the database at the path, creates it (mode 0600, its directory
// must exist) where there is none, and brings its tables up to date. Errors
// wrap storage.ErrUnavailable; ctx bounds the opening alone.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	return open(ctx, path, log, 0)
}

func open(ctx context.Context, path string, log *slog.Logger, keepChanges int64) (_ *Store, err error) {
	fail := func(err error) error { return fmt.Errorf("open %s: %w", path, err) }
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fail(fmt.Errorf("%w: %w", storage.ErrUnavailable, err))
	}
	if err := prepareFile(ctx, path, log); err != nil {
		return nil, fail(err)
	}
	writer, err := connect(path, 1, "immediate", nil)
	if err != nil {
		return nil, fail(err)
	}
	reader, err := connect(path, max(4, runtime.GOMAXPROCS(0)), "deferred", map[string]string{"_query_only": "1"})
	if err != nil {
		return nil, fail(errors.Join(err, writer.Close()))
	}
	store, err := start(ctx, writer, reader, log, keepChanges)
	if err != nil {
		return nil, fail(errors.Join(err, reader.Close(), writer.Close()))
	}
	return &Store{store}, nil
}

// prepareFile creates the file before SQLite would, which asks for mode 0644.
// The files beside it get the mode of this one.
func prepareFile(ctx context.Context, path string, log *slog.Logger) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		log.WarnContext(ctx, "the database can be reached by other users of this machine; make its mode 0600",
			"path", path, "mode", fmt.Sprintf("%#o", mode))
	}
	return nil
}

// connect makes a pool of at most n connections. It opens none yet.
func connect(path string, n int, lock string, more map[string]string) (*sql.DB, error) {
	q := url.Values{
		"_txlock":   {lock},
		"_dqs":      {"0"},
		"_error_rc": {"1"},
		// Nothing the broker does needs what this forbids.
		"_defensive": {"1"},
		"_pragma": {
			// How long to wait for another process, milliseconds.
			"busy_timeout(5000)",
			"foreign_keys(1)",
			"journal_mode(WAL)",
			// In WAL mode only FULL syncs each commit.
			"synchronous(FULL)",
			// On macOS a sync is none without these.
			"fullfsync(1)", "checkpoint_fullfsync(1)",
			"journal_size_limit(" + strconv.Itoa(maxJournal) + ")",
			"trusted_schema(0)",
			// Pages of the log, 16 MiB: the indexes of the trail touch the
			// same pages again and again before they go to the file.
			"wal_autocheckpoint(4000)",
		},
	}
	for k, v := range more {
		q.Set(k, v)
	}
	// The path is escaped, for it may hold ? and %, and begins with a slash
	// also where it has a drive letter.
	dsn := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(path), "/"), RawQuery: q.Encode()}
	connector, err := driver.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %s", storage.ErrUnavailable, describe(err))
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// start checks the file, migrates it and makes the store.
func start(ctx context.Context, writer, reader *sql.DB, log *slog.Logger, keepChanges int64) (*sqlstore.Store, error) {
	if err := checkFile(ctx, writer); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s", storage.ErrUnavailable, describe(err))
	}
	migrations, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return nil, err
	}
	if err := sqlstore.Migrate(ctx, dialect, goose.DialectSQLite3, writer, migrations, log); err != nil {
		return nil, err
	}
	return sqlstore.New(ctx, sqlstore.Config{
		Dialect: dialect, Writer: writer, Reader: reader, Bell: &sqlstore.Bell{}, KeepChanges: keepChanges,
	})
}

// checkFile makes sure that the file is the broker's, or empty, and that
// SQLite could switch it to WAL (it says nothing where the file system cannot).
func checkFile(ctx context.Context, db *sql.DB) error {
	var id, tables int64
	var journal string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if journal != "wal" {
		return fmt.Errorf("the file system does not allow WAL mode (journal mode is %s): put the file on a local disk", journal)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id == applicationID {
		return nil
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if id != 0 || tables != 0 {
		return errors.New("the file is another program's database")
	}
	_, err := db.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	return err
}
