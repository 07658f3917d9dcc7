package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stokerd/stoker/internal/partner"
)

const (
	hint = "install PostgreSQL 12 or later (Debian: apt-get install postgresql)"

	// startTime bounds a start. A killed server first has to recover, and its
	// children must have noticed that it is gone.
	startTime = 60 * time.Second

	superuser = "stoker"
)

// programDirs are where distributions keep the server's programs.
var programDirs = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
}

// Server is one PostgreSQL server. Its methods are for one goroutine at a
// time.
type Server struct {
	binary   string
	dir      string
	account  *account // whom it runs as; nil: as the test
	port     int
	password string
	settings []string
	process  *process // nil while it does not run
	made     atomic.Int64
}

// Start starts a server, with settings such as "fsync=off" beside its own
// defaults. It is stopped and its data removed when the test ends. Where no
// server is installed, partner.Missing ends the test.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := &Server{
		binary: partner.LookPath(t, "postgres", hint, programDirs...), settings: settings,
		account: unprivileged(t), password: rand.Text(),
	}
	// Not t.TempDir, whose parents may be closed to the server's account.
	dir, err := os.MkdirTemp("", "stoker-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(func() {
		if s.process != nil {
			s.Stop(t)
		}
		if t.Failed() {
			t.Logf("PostgreSQL said:\n%s", s.said())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.initialize(t)
	s.port = partner.FreePort(t) // last: to initialize takes a while
	s.Restart(t)
	return s
}

// initialize makes the data directory. Text is ordered as people do in the
// database's default collation, so that a client which relies on the order of
// bytes without asking for it is found out.
func (s *Server) initialize(t testing.TB) {
	t.Helper()
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.password), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.dir, secret} {
		if err := s.account.own(path); err != nil {
			t.Fatal(err)
		}
	}
	initdb := partner.LookPath(t, "initdb", hint, append([]string{filepath.Dir(s.binary)}, programDirs...)...)
	args := []string{"--pgdata", s.data(), "--username", superuser, "--pwfile", secret,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"}
	err := s.run(initdb, append(args, "--locale-provider", "icu", "--icu-locale", "en-US")...)
	if err != nil { // built without ICU, or older than 15
		err = s.run(initdb, args...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// run runs a program of the server to its end.
func (s *Server) run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	s.account.become(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return nil
}

// Restart starts a server that was stopped or killed, on the same address and
// data, and waits until it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		err := s.tryStart(ctx)
		if err == nil {
			return
		}
		s.process = nil
		// A killed server's children hold its memory until they notice.
		if !strings.Contains(s.said(), "is still in use") || ctx.Err() != nil {
			t.Fatalf("PostgreSQL does not start: %v\n%s", err, s.said())
		}
		pause(ctx)
	}
}

func (s *Server) tryStart(ctx context.Context) error {
	args := []string{"-D", s.data(), "-p", fmt.Sprint(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=32MB"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	cmd := exec.Command(s.binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	s.account.become(cmd)
	if s.process, err = startProcess(cmd); err != nil {
		return err
	}
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.ended:
			return fmt.Errorf("it ended: %w", s.process.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		default:
			pause(ctx)
		}
	}
}

func (s *Server) answers(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func pause(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

func (s *Server) said() string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Stop ends the server in an orderly way: clients are disconnected, running
// transactions rolled back.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.end(t, syscall.SIGINT)
}

// Kill ends the server without letting it finish anything.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.end(t, syscall.SIGKILL)
}

func (s *Server) end(t testing.TB, signal os.Signal) {
	t.Helper()
	if s.process == nil {
		t.Fatal("PostgreSQL does not run")
	}
	if err := s.process.signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.process.ended:
	case <-time.After(startTime):
		t.Fatalf("PostgreSQL does not end\n%s", s.said())
	}
	s.process = nil
}

// DSN is how to connect to the server as its superuser, to the database that
// is always there. The address stays the same over restarts.
func (s *Server) DSN() string { return s.dsn(s.Address(), "postgres") }

// Address is the server's host and port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(s.port)) }

// Password is part of the DSNs; tests make sure that it appears nowhere.
func (s *Server) Password() string { return s.password }

func (s *Server) dsn(address, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.password), Host: address, Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database makes an empty database and returns how to connect to it.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("test", s.made.Add(1))
	s.Exec(t, "CREATE DATABASE "+name)
	return s.dsn(s.Address(), name)
}

// Exec runs a statement as the superuser, outside of the tests' databases.
func (s *Server) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
