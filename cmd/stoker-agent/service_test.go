package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stokerd/stoker/client/clienttest"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/service"
)

// register is a service manager that keeps its services in memory.
type register map[string]service.Definition

func (r register) Install(d service.Definition) error {
	if _, exists := r[d.Name]; exists {
		return errors.New("there is one")
	}
	r[d.Name] = d
	return nil
}

func (r register) Uninstall(name string) error {
	if _, exists := r[name]; !exists {
		return errors.New("there is none")
	}
	delete(r, name)
	return nil
}

// ring is a keyring in memory.
type ring map[string]string

func (r ring) Get(login string) (string, error) {
	secret, ok := r[login]
	if !ok {
		return "", password.ErrNoEntry
	}
	return secret, nil
}

func (r ring) Set(login, secret string) error { r[login] = secret; return nil }

func (r ring) Delete(login string) error {
	if _, ok := r[login]; !ok {
		return password.ErrNoEntry
	}
	delete(r, login)
	return nil
}

// shortDir gives a directory for a socket, whose path is to be short: a test's own
// directory may have a long one.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// configure writes a configuration file for a broker into a directory that has the
// files of an agent.
func configure(t *testing.T, broker *clienttest.Broker, dir, more string) string {
	t.Helper()
	text := "brokers: [" + broker.Address() + "]\nca: ca.pem\ncertificate: agent.pem\nkey: agent.key\nlisten: 127.0.0.1:0\n" + more
	file := filepath.Join(dir, configFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// configureService writes a service's configuration file into a directory of its
// own.
func configureService(t *testing.T, broker *clienttest.Broker, more string) string {
	t.Helper()
	dir := shortDir(t)
	broker.Files(dir)
	return configure(t, broker, dir, "socket: run/agent.sock\ntoken_file: run/token\n"+more)
}

func TestInstallService(t *testing.T) {
	broker := clienttest.New(t)
	good := configureService(t, broker, "users: {nightly@acme: {password_file: password}}\n")
	manager, out := register{}, new(bytes.Buffer)
	to := &surroundings{out: out, err: io.Discard, keyring: ring{}}
	executable := filepath.Join(filepath.Dir(good), "stoker-agent.exe")
	if err := installService(t.Context(), manager, executable, good, to); err != nil {
		t.Fatal(err)
	}
	d := manager[service.Name]
	if d.Executable != executable || !slices.Equal(d.Arguments, []string{"service", "run", "--config", good}) ||
		!strings.Contains(out.String(), service.Account) {
		t.Errorf("%+v; %s", d, out)
	}
	if err := installService(t.Context(), manager, executable, good, to); err == nil {
		t.Error("it was installed twice")
	}
	if err := uninstallService(manager, to); err != nil {
		t.Fatal(err)
	}
	if err := uninstallService(manager, to); err == nil {
		t.Error("it was uninstalled twice")
	}
	for says, file := range map[string]string{
		"a keyring is a person's": configureService(t, broker, "users: {nightly@acme: {password_keyring: true}}\n"),
		"missing password":        configureService(t, broker, "users: {nightly@acme: {}}\n"),
		"none.yaml":               filepath.Join(filepath.Dir(good), "none.yaml"),
	} {
		if err := installService(t.Context(), manager, executable, file, to); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	if err := installService(t.Context(), manager, "stoker-agent.exe", good, to); err == nil {
		t.Error("it was installed without a path")
	}
	if len(manager) != 0 {
		t.Errorf("a refusal left %v", manager)
	}
}

// The whole of a service's life, but for the calls to Windows.
func TestServiceLife(t *testing.T) {
	broker := clienttest.New(t)
	file := configureService(t, broker, "users: {nightly@acme: {password_file: password}}\n")
	to := &surroundings{out: io.Discard, err: io.Discard, keyring: ring{}}
	requests, states := make(chan service.Request), make(chan service.State, 8)
	ended := make(chan error, 1)
	go func() {
		ended <- service.Supervise(t.Context(), func(ctx context.Context, ready func()) error {
			s, err := serviceSettings(ctx, file, to, t.Output())
			if err != nil {
				return err
			}
			return serve(ctx, s, func(*agent.Agent) error { ready(); return nil })
		}, requests, func(s service.State) { states <- s })
	}()
	for _, want := range []service.State{service.Starting, service.Running} {
		if got := <-states; got != want {
			t.Fatalf("state %v, want %v", got, want)
		}
	}
	requests <- service.Stop
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if first, last := <-states, <-states; first != service.Stopping || last != service.Stopped {
		t.Errorf("at the end %v, %v", first, last)
	}
}
