package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/config"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/planted"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/service"
)

// installService registers the agent as a service with a configuration file, which
// must be good.
func installService(ctx context.Context, manager service.Manager, executable, configFile string, to *surroundings) error {
	if configFile == "" {
		configFile = filepath.Join(machineConfig(), "stoker-agent.yaml")
		if err := planted.Check(configFile); err != nil {
			return err
		}
	}
	configFile, err := filepath.Abs(configFile)
	if err != nil {
		return err
	}
	if _, err := serviceSettings(ctx, configFile, to, io.Discard); err != nil {
		return err
	}
	definition, err := service.Define(executable, configFile)
	if err != nil {
		return err
	}
	if err := manager.Install(definition); err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.out, "installed the service %s, which runs as %s: let that read the files that %s names, then run sc.exe start %s\n",
		definition.Name, definition.Account, configFile, definition.Name)
	return err
}

// uninstallService stops and removes the service.
func uninstallService(manager service.Manager, to *surroundings) error {
	if err := manager.Uninstall(service.Name); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to.out, "uninstalled the service %s; its files are where they were\n", service.Name)
	return err
}

// serviceSettings are those of a service: from a file alone, and with places that
// do not depend on a person's session.
func serviceSettings(ctx context.Context, configFile string, to *surroundings, log io.Writer) (agent.Settings, error) {
	f, err := config.Read(configFile)
	if err != nil {
		return agent.Settings{}, err
	}
	for _, login := range f.Logins() {
		if f.Users[login].PasswordKeyring {
			f.Problem("users."+login+".password_keyring", "a keyring is a person's, and the service cannot open it: set password_file")
		}
	}
	if f.TokenFile == "" {
		f.TokenFile = filepath.Join(filepath.Dir(f.Path), "token")
	}
	f.Socket = or(f.Socket, serviceSocket())
	s, err := runCommand{Renew: true}.fromFile(ctx, f, to, log)
	if err != nil {
		return agent.Settings{}, err
	}
	if len(s.Users) == 0 {
		return agent.Settings{}, errors.New("there is no user")
	}
	return s, nil
}
