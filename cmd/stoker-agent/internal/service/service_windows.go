package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

const (
	// stopPatience is how long Uninstall waits for the service to end.
	stopPatience = 30 * time.Second
	stopLook     = 200 * time.Millisecond
	// eventID is the id of all our events; their text says the rest.
	eventID = 1
	// exitFailed is what the manager is told of a service that failed.
	exitFailed = 1
)

// System is the service manager of Windows. It needs an administrator.
func System() Manager { return system{} }

type system struct{}

// Install implements Manager.
func (system) Install(d Definition) (err error) {
	m, err := mgr.Connect()
	if err != nil {
		return needsAdministrator(err)
	}
	defer func() { err = errors.Join(err, m.Disconnect()) }()
	s, err := m.CreateService(d.Name, d.Executable, mgr.Config{
		DisplayName: d.DisplayName, Description: d.Description, ServiceStartName: d.Account,
		StartType: mgr.StartAutomatic, DelayedAutoStart: true,
	}, d.Arguments...)
	if errors.Is(err, windows.ERROR_SERVICE_EXISTS) {
		return fmt.Errorf("there is a service %s: uninstall it first", d.Name)
	}
	if err != nil {
		return needsAdministrator(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Delete())
		}
		err = errors.Join(err, s.Close())
	}()
	// As long as it takes: an agent that gave up would need a person at each machine.
	restart := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	later := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: time.Minute}
	if err := s.SetRecoveryActions([]mgr.RecoveryAction{restart, restart, later}, uint32((24 * time.Hour).Seconds())); err != nil {
		return err
	}
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		return err
	}
	return eventlog.InstallAsEventCreate(d.Name, eventlog.Error|eventlog.Warning|eventlog.Info)
}

// Uninstall implements Manager.
func (system) Uninstall(name string) (err error) {
	m, err := mgr.Connect()
	if err != nil {
		return needsAdministrator(err)
	}
	defer func() { err = errors.Join(err, m.Disconnect()) }()
	s, err := m.OpenService(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return fmt.Errorf("there is no service %s", name)
	}
	if err != nil {
		return needsAdministrator(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := stop(s); err != nil {
		return err
	}
	return errors.Join(s.Delete(), eventlog.Remove(name))
}

// stop ends a service if it runs, and waits until it has ended.
func stop(s *mgr.Service) error {
	status, err := s.Control(svc.Stop)
	if errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stopping it: %w", err)
	}
	look := time.NewTicker(stopLook)
	defer look.Stop()
	for deadline := time.Now().Add(stopPatience); status.State != svc.Stopped; {
		if time.Now().After(deadline) {
			return fmt.Errorf("it did not stop within %s", stopPatience)
		}
		<-look.C
		if status, err = s.Query(); err != nil {
			return fmt.Errorf("looking whether it stopped: %w", err)
		}
	}
	return nil
}

func needsAdministrator(err error) error {
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return fmt.Errorf("run this as an administrator: %w", err)
	}
	return err
}

// IsService says whether the service manager has started this process.
func IsService() (bool, error) { return svc.IsWindowsService() }

// Run runs this process as a service to its end.
func Run(run func(ctx context.Context, ready func()) error) error {
	h := &handler{run: run}
	if err := svc.Run(Name, h); err != nil {
		return err
	}
	return h.failed
}

// handler speaks with the manager. It is used once.
type handler struct {
	run    func(ctx context.Context, ready func()) error
	failed error
}

// Execute implements svc.Handler.
func (h *handler) Execute(_ []string, changes <-chan svc.ChangeRequest, statuses chan<- svc.Status) (specific bool, code uint32) {
	requests, over := make(chan Request), make(chan struct{})
	defer close(over)
	go translate(changes, requests, over)
	h.failed = Supervise(context.Background(), h.run, requests, func(s State) {
		if s != Stopped { // which svc tells itself, together with the code
			statuses <- statusOf(s)
		}
	})
	if h.failed != nil {
		return true, exitFailed
	}
	return false, 0
}

// translate passes the manager's requests on until it is over.
func translate(changes <-chan svc.ChangeRequest, requests chan<- Request, over <-chan struct{}) {
	defer close(requests)
	for {
		select {
		case c, more := <-changes:
			if !more {
				return
			}
			request := Interrogate
			if c.Cmd == svc.Stop || c.Cmd == svc.Shutdown {
				request = Stop
			}
			select {
			case requests <- request:
			case <-over:
				return
			}
		case <-over:
			return
		}
	}
}

func statusOf(s State) svc.Status {
	status := svc.Status{State: svc.StartPending}
	switch s {
	case Running:
		status = svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	case Stopping:
		status.State = svc.StopPending
	}
	return status
}

// Log writes lines to the event log.
type Log struct{ log *eventlog.Log }

// OpenLog opens the service's event log. Close it when done.
func OpenLog() (*Log, error) {
	log, err := eventlog.Open(Name)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	return &Log{log}, nil
}

// Write implements io.Writer: each call is one event.
func (l *Log) Write(line []byte) (int, error) {
	if err := l.log.Info(eventID, string(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Close closes the log.
func (l *Log) Close() error { return l.log.Close() }
