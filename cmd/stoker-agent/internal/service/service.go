package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Name is the service's, in the manager and in the event log.
const Name = "stoker-agent"

// Account is what the service runs as: an account that Windows makes for it alone,
// without a password and without rights that it was not given.
const Account = `NT SERVICE\` + Name

// Definition is a service as it is registered.
type Definition struct {
	Name, DisplayName, Description string
	// Executable is an absolute path, followed by Arguments when it starts.
	Executable string
	Arguments  []string
	Account    string
}

// Manager registers services. Install fails where there is one of that name, and
// leaves nothing behind then; Uninstall stops the service first.
type Manager interface {
	Install(Definition) error
	Uninstall(name string) error
}

// Define gives the definition of an agent with a configuration file.
func Define(executable, configFile string) (Definition, error) {
	var problems []error
	for what, path := range map[string]string{"program": executable, "configuration file": configFile} {
		if !isAbsolute(path) {
			problems = append(problems, fmt.Errorf("the %s must have an absolute path, not %q", what, path))
		}
	}
	return Definition{
		Name: Name, DisplayName: "Stoker agent",
		Description: "Keeps the backup tools on this machine supplied with short-lived credentials.",
		Executable:  executable, Arguments: []string{"service", "run", "--config", configFile}, Account: Account,
	}, errors.Join(problems...)
}

// isAbsolute knows the paths of Windows on any system.
func isAbsolute(path string) bool {
	drive := len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
	return drive || strings.HasPrefix(path, `\\`) || filepath.IsAbs(path)
}

// Request is what the system asks of a running service.
type Request int

// What it may ask.
const (
	// Interrogate: say again how it stands.
	Interrogate Request = iota
	// Stop: end, since somebody says so or the machine shuts down.
	Stop
)

// State is how a service stands.
type State int

// How it may stand.
const (
	Starting State = iota
	Running
	Stopping
	Stopped
)

// Supervise runs a service to its end and keeps the manager informed: Starting,
// then Running once run has called ready, Stopping when it was asked to end, and
// Stopped. It answers each interrogation with the last of these. Where requests is
// closed, the manager has gone, and the service ends too. The error is run's.
func Supervise(ctx context.Context, run func(ctx context.Context, ready func()) error, requests <-chan Request, tell func(State)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	state := Starting
	tell(state)
	ready, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- run(ctx, func() {
			select {
			case ready <- struct{}{}:
			default: // it was told before
			}
		})
	}()
	for {
		select {
		case <-ready:
			if state == Starting {
				state = Running
				tell(state)
			}
		case r, more := <-requests:
			switch {
			case !more || r == Stop:
				cancel()
				if !more {
					requests = nil
				}
				if state != Stopping {
					state = Stopping
				}
			case r != Interrogate:
				continue
			}
			tell(state)
		case err := <-ended:
			tell(Stopped)
			return err
		}
	}
}
