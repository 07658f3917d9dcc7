package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	partner "github.com/stokerd/stoker/internal/partner/postgres"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Replicas that find an empty database at the same time make its tables once.
func testReplicasStartTogether(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	var replicas sync.WaitGroup
	for i := range 4 {
		replicas.Go(func() {
			s, err := Open(t.Context(), dsn, logger(t))
			if err != nil {
				t.Error(err)
				return
			}
			defer mustClose(t, s)
			if err := endSession(t.Context(), s, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	replicas.Wait()
}

// Whatever is wrong with a DSN, what is said of it does not hold its password.
func testNoPasswordIsShown(t *testing.T, server *partner.Server) {
	const canary = "pa55-canary"
	address := server.Address()
	host, port, _ := strings.Cut(address, ":")
	for name, dsn := range map[string]string{
		"wrong":         "postgres://stoker:" + canary + "@" + address + "/postgres?sslmode=disable",
		"no user":       "postgres://nobody:" + canary + "@" + address + "/postgres?sslmode=disable",
		"pairs":         "host=" + host + " port=" + port + " user=stoker password=" + canary + " dbname=postgres sslmode=disable",
		"quoted":        "host=" + host + " user=stoker password='" + canary + " dbname=postgres",
		"no server":     "postgres://stoker:" + canary + "@127.0.0.1:1/postgres",
		"no host":       "postgres://stoker:" + canary + "@nowhere.invalid/postgres",
		"bad port":      "postgres://stoker:" + canary + "@127.0.0.1:port/postgres",
		"bad escape":    "postgres://stoker:%zz" + canary + "@127.0.0.1/postgres",
		"bad parameter": "postgres://stoker:" + canary + "@" + address + "/postgres?sslmode=" + canary,
		"bad setting":   "postgres://stoker:" + canary + "@" + address + "/postgres?sslmode=disable&no_such_setting=1",
		"no URL":        canary,
	} {
		var logged bytes.Buffer
		s, err := Open(t.Context(), dsn, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if err == nil {
			mustClose(t, s)
			t.Errorf("%s: opened", name)
			continue
		}
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if connecting := (*pgconn.ConnectError)(nil); errors.As(err, &connecting) {
			t.Errorf("%s: the error holds the configuration", name)
		}
		if said := fmt.Sprintf("%v %+v %#v", err, err, err) + logged.String(); strings.Contains(said, canary) {
			t.Errorf("%s: the password is shown: %s", name, said)
		}
	}
}

// The settings that durability and the release of locks rest on, as the
// server sees them.
func testSettings(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	check := func(dsn, setting, want string) {
		t.Helper()
		config, err := parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		db := connect(config)
		defer func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		var got string
		if err := db.QueryRowContext(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", setting, got, err, want)
		}
	}
	check(dsn, "synchronous_commit", "on")
	for set, want := range map[string]string{"off": "on", "remote_apply": "remote_apply", "local": "local"} {
		run(t, dsn, "ALTER ROLE stoker SET synchronous_commit = "+set)
		check(dsn, "synchronous_commit", want)
	}
	run(t, dsn, "ALTER ROLE stoker RESET synchronous_commit")
	check(dsn, "idle_in_transaction_session_timeout", "10s")
	check(dsn+"&idle_in_transaction_session_timeout=4000", "idle_in_transaction_session_timeout", "4s")
	check(dsn, "application_name", "stoker")
	check(dsn, "tcp_keepalives_idle", "10")

	var logged bytes.Buffer
	s, err := Open(t.Context(), dsn, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if !strings.Contains(logged.String(), "fsync=off") || strings.Contains(logged.String(), "not encrypted") {
		t.Errorf("logged: %s", logged.String())
	}
}

// Brokers with schemas of their own share a database and nothing else: not
// even the lock of the feed.
func testSchemasAreApart(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	run(t, dsn, "CREATE SCHEMA a; CREATE SCHEMA b")
	a, b := mustOpen(t, dsn+"&search_path=a", 0), mustOpen(t, dsn+"&search_path=b", 0)
	defer mustClose(t, a)
	defer mustClose(t, b)
	err := tryBuild(t.Context(), a, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := endSession(ctx, b, "id"); err != nil {
			t.Errorf("the other broker's write: %v", err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := a.GetEndedSession(t.Context(), "id"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a finds what b stored: %v", err)
	}
}

func testEncoding(t *testing.T, server *partner.Server) {
	const create = "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err = conn.Exec(t.Context(), create+" LOCALE_PROVIDER libc"); err != nil { // unknown before 15
		_, err = conn.Exec(t.Context(), create)
	}
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	dsn.Path = "/ascii"
	s, err := Open(t.Context(), dsn.String(), logger(t))
	if err == nil {
		mustClose(t, s)
	}
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "SQL_ASCII") {
		t.Errorf("error is %v", err)
	}
}

// A server that takes no writes, such as a replica, can be read and says so in
// Ping.
func testReadOnly(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	mustClose(t, mustOpen(t, dsn, 0))
	s := mustOpen(t, dsn+"&default_transaction_read_only=on", 0)
	defer mustClose(t, s)
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("ping: %v", err)
	}
	if err := tryAppend(t.Context(), s, record("w", 1)); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	if _, err := s.Load(t.Context()); err != nil {
		t.Errorf("load: %v", err)
	}
}

func testOpenHonorsItsContext(t *testing.T, server *partner.Server) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, server.DSN(), logger(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func testNewerTables(t *testing.T, server *partner.Server) {
	dsn := server.Database(t)
	mustClose(t, mustOpen(t, dsn, 0))
	run(t, dsn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)")
	var logged bytes.Buffer
	s, err := Open(t.Context(), dsn, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	if !strings.Contains(logged.String(), "tables=99") {
		t.Errorf("logged: %s", logged.String())
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whatever is passed for a DSN, an error about it repeats nothing of it that
// could be the password.
func FuzzDSN(f *testing.F) {
	for _, dsn := range []string{
		"", "postgres://", "postgres://u:secret-word@h:5432/d?sslmode=disable", "postgres://u:secret-word@h:port/d",
		"postgres://u:%secret-word@h/d", "host=h password=secret-word", "host=h password='secret-word", "password=secret-word\x00",
		"postgres://h?password=secret-word&sslmode=x", "service=secret-word", "sslrootcert=/secret-word", "\\secret-word",
	} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		config, err := parse(dsn)
		if err == nil {
			if config.DialFunc == nil || config.ConnectTimeout == 0 || config.RuntimeParams["application_name"] == "" {
				t.Error("a connection would lack settings")
			}
			return
		}
		if !errors.Is(err, storage.ErrUnavailable) || strings.Contains(err.Error(), "secret-word") {
			t.Errorf("error is %v", err)
		}
	})
}
