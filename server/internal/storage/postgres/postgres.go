package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

//go:embed migrations/*.sql
var embedded embed.FS

const (
	// poolSize bounds the connections that write and, apart from them, those
	// that read. With the listening one a replica has at most eleven.
	poolSize = 5

	// oldestServer is the version that the tests and the SQL are meant for,
	// as the server counts them.
	oldestServer = 120000

	// migrationLock is the advisory lock under which one replica migrates.
	migrationLock = 0x53544b52_0001
	// migrationWait bounds, in seconds, how long the others wait for it.
	migrationWait = 300

	connectTimeout = 10 * time.Second
)

// Store is a database on a PostgreSQL server.
type Store struct {
	*sqlstore.Store
	listener *listener
}

// Watch implements storage.Feed. It also hears of the changes that other
// replicas make.
func (s *Store) Watch(ctx context.Context) (<-chan struct{}, error) {
	watch, err := s.Store.Watch(ctx)
	if err == nil {
		s.listener.start()
	}
	return watch, err
}

// Close implements storage.Store.
func (s *Store) Close() error {
	s.listener.stop()
	return s.Store.Close()
}

// Open connects to the database that the DSN (a URL or key=value pairs, as of
// libpq) names, which must exist, and brings its tables up to date; of replicas
// that start together one does so and the others wait. Errors wrap
// storage.ErrUnavailable and never show the password; ctx bounds the opening
// alone.
func Open(ctx context.Context, dsn string, log *slog.Logger) (*Store, error) {
	return open(ctx, dsn, log, 0)
}

func open(ctx context.Context, dsn string, log *slog.Logger, keepChanges int64) (*Store, error) {
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	dialect := newDialect(config.Password)
	writer, reader := connect(config), connect(config)
	bell := &sqlstore.Bell{}
	inner, err := start(ctx, log, sqlstore.Config{
		Dialect: dialect, Writer: writer, Reader: reader, Bell: bell, KeepChanges: keepChanges,
	})
	if err != nil {
		if closing := errors.Join(reader.Close(), writer.Close()); closing != nil {
			log.WarnContext(ctx, "closing the database", "error", dialect.Text(closing))
		}
		return nil, fmt.Errorf("open PostgreSQL at %s: %w", place(config), err)
	}
	warn(ctx, config, reader, log)
	return &Store{Store: inner, listener: newListener(config, bell, log, dialect.Text)}, nil
}

// parse reads the DSN and adds what the broker needs of each connection and
// the DSN does not say. The parser's errors are not shown, because they quote
// the DSN, and where it is malformed they cannot know where the password is.
func parse(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("%w: the PostgreSQL DSN cannot be parsed: write postgres://user:password@host:5432/database "+
			"with the password percent-encoded, or key=value pairs", storage.ErrUnavailable)
	}
	for setting, value := range map[string]string{
		"application_name": "stoker",
		// A replica that froze or was cut off holds the feed's lock: the
		// server gives up on it. Milliseconds, then seconds and a count.
		"idle_in_transaction_session_timeout": "10000",
		"tcp_user_timeout":                    "10000",
		"tcp_keepalives_idle":                 "10",
		"tcp_keepalives_interval":             "5",
		"tcp_keepalives_count":                "3",
	} {
		if _, said := config.RuntimeParams[setting]; !said {
			config.RuntimeParams[setting] = value
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	config.DialFunc = dialer.DialContext
	return config, nil
}

// place says where the database is.
func place(c *pgx.ConnConfig) string {
	return fmt.Sprintf("%s:%d, database %s, user %s", c.Host, c.Port, c.Database, c.User)
}

// connect makes a pool. It opens no connection yet.
func connect(config *pgx.ConnConfig) *sql.DB {
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(settle))
	db.SetMaxOpenConns(poolSize)
	db.SetMaxIdleConns(poolSize)
	// Old connections go, so that the load follows when servers are exchanged
	// behind a name.
	db.SetConnMaxLifetime(30 * time.Minute)
	return db
}

// settle makes the commits of a new connection durable where the server's
// default is not, and leaves stronger settings as they are.
func settle(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
		WHERE current_setting('synchronous_commit') = 'off'`)
	if err != nil {
		// database/sql never sees a connection that failed here.
		return errors.Join(err, conn.Close(ctx))
	}
	return nil
}

// start checks the server, migrates and makes the store.
func start(ctx context.Context, log *slog.Logger, c sqlstore.Config) (*sqlstore.Store, error) {
	if err := checkServer(ctx, c.Writer); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s", storage.ErrUnavailable, c.Dialect.Text(err))
	}
	migrations, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, migrationWait))
	if err != nil {
		return nil, err
	}
	err = sqlstore.Migrate(ctx, c.Dialect, goose.DialectPostgres, c.Writer, migrations, log, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, err
	}
	return sqlstore.New(ctx, c)
}

// checkServer refuses servers that could not keep what is passed.
func checkServer(ctx context.Context, db *sql.DB) error {
	var version int64
	var encoding string
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::bigint, current_setting('server_encoding')`).
		Scan(&version, &encoding)
	switch {
	case err != nil:
		return err
	case version < oldestServer:
		return fmt.Errorf("the server has version %d, need %d or later", version, oldestServer)
	case encoding != "UTF8":
		return fmt.Errorf("the database has encoding %s: create it with ENCODING 'UTF8'", encoding)
	}
	return nil
}

// warn says what an operator will want to change. Nothing depends on it, so
// that failing to find out is no error.
func warn(ctx context.Context, config *pgx.ConnConfig, db *sql.DB, log *slog.Logger) {
	var fsync string
	var encrypted bool
	err := db.QueryRowContext(ctx, `SELECT current_setting('fsync'), coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)`).
		Scan(&fsync, &encrypted)
	if err != nil {
		log.DebugContext(ctx, "the server's settings could not be read", "host", config.Host)
		return
	}
	if fsync != "on" {
		log.WarnContext(ctx, "the PostgreSQL server runs with fsync=off: a crash loses what was acknowledged", "host", config.Host)
	}
	if !encrypted && !local(config.Host) {
		log.WarnContext(ctx, "the connection to PostgreSQL is not encrypted; add sslmode=verify-full to the DSN", "host", config.Host)
	}
}

// local says whether the host is this machine: a socket or a loopback address.
func local(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || len(host) > 0 && (host[0] == '/' || host[0] == '@')
}
