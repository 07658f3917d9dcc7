// Package database runs a PostgreSQL server of its own for as long as a
// measurement lasts, if one is installed: on loopback, in a directory that is
// given to it, with durable commits as a provider would have them.
//
// It owns the server's process and nothing that is in the database.
package database

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNone says that no PostgreSQL is installed.
var ErrNone = errors.New("no PostgreSQL is installed (Debian: apt-get install postgresql), and none was named")

// places are where distributions keep the server's programs, newest last.
var places = []string{"/usr/pgsql-*/bin", "/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin"}

// Server is a running server.
type Server struct {
	// DSN is how to connect to an empty database.
	DSN   string
	cmd   *exec.Cmd
	said  bytes.Buffer // its log; read once it has ended
	ended chan struct{}
}

// startLimit bounds the start.
const startLimit = time.Minute

// Start starts a server in a directory, which must exist and be empty.
func Start(ctx context.Context, dir string) (_ *Server, err error) {
	programs, err := find()
	if err != nil {
		return nil, err
	}
	who, err := unprivileged()
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return nil, err
	}
	for _, path := range []string{dir, secret} {
		if err := who.own(path); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initialize := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "--pgdata", data, "--username", "stoker", //nolint:gosec // the database server that was found
		"--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	initialize.Dir = dir
	who.become(initialize)
	if out, err := initialize.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{ended: make(chan struct{})}
	s.DSN = (&url.URL{
		Scheme: "postgres", User: url.UserPassword("stoker", password), Host: net.JoinHostPort("127.0.0.1", fmt.Sprint(port)),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}).String()
	s.cmd = exec.Command(filepath.Join(programs, "postgres"), "-D", data, "-p", fmt.Sprint(port), "-c", "listen_addresses=127.0.0.1", //nolint:gosec // the database server that was found
		"-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=128MB")
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, &s.said, &s.said
	who.become(s.cmd)
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// run starts the process from a thread that lives until it ends: where the
// system can, it ends the process with that thread, and so with this program.
func (s *Server) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // what it says is in its log
			close(s.ended)
		}
	}()
	return <-started
}

// await waits until the server answers.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.DSN)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.ended:
			return fmt.Errorf("PostgreSQL ended:\n%s", s.said.String())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// Stop ends the server, without care for its data.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.ended
	return nil
}

// find gives the directory of the server's programs.
func find() (string, error) {
	for _, place := range places {
		found, err := filepath.Glob(place)
		if err != nil {
			return "", err
		}
		for i := len(found) - 1; i >= 0; i-- {
			if _, err := exec.LookPath(filepath.Join(found[i], "initdb")); err == nil {
				return found[i], nil
			}
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNone
}

// freePort finds a loopback port.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("a TCP listener has no port"), l.Close())
	}
	return at.Port, l.Close()
}
