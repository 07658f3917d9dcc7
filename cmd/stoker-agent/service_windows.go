package main

import (
	"context"
	"errors"
	"os"

	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/service"
)

// commands is the command line.
type commands struct {
	everywhere
	Service serviceCommand `cmd:"" help:"Install, remove or run the service of Windows."`
}

// serviceCommand is about the service.
type serviceCommand struct {
	Install   serviceInstallCommand   `cmd:"" help:"Register the agent as a service that starts with the machine. Needs an administrator."`
	Uninstall serviceUninstallCommand `cmd:"" help:"Stop and remove the service. Needs an administrator."`
	Run       serviceRunCommand       `cmd:"" help:"Run as the service: for the service manager, not for people."`
}

type serviceInstallCommand struct {
	Config string `placeholder:"FILE" help:"Configuration file. Without it, the machine's."`
}

// Run implements the command.
func (c serviceInstallCommand) Run(ctx context.Context, to *surroundings) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	return installService(ctx, service.System(), executable, c.Config, to)
}

type serviceUninstallCommand struct{}

// Run implements the command.
func (serviceUninstallCommand) Run(to *surroundings) error {
	return uninstallService(service.System(), to)
}

type serviceRunCommand struct {
	Config string `required:"" placeholder:"FILE" help:"Configuration file."`
}

// Run implements the command. What goes wrong is in the event log: a service has
// no standard error.
func (c serviceRunCommand) Run(to *surroundings) (err error) {
	is, err := service.IsService()
	if err != nil {
		return err
	}
	if !is {
		return errors.New("this is for the service manager: run sc.exe start " + service.Name + ", or stoker-agent run")
	}
	log, err := service.OpenLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	err = service.Run(func(ctx context.Context, ready func()) error {
		s, err := serviceSettings(ctx, c.Config, to, log)
		if err != nil {
			return err
		}
		return serve(ctx, s, func(*agent.Agent) error { ready(); return nil })
	})
	if err != nil {
		_, told := log.Write([]byte(err.Error()))
		err = errors.Join(err, told)
	}
	return err
}
