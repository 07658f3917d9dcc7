package delivery

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
)

// The exit codes that shells use for a command that did not run, and the one of
// env, timeout and nohup for a failure of their own.
const (
	ExitFailed        = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// Exec runs a command with this process's standard streams, so that a terminal
// passes through, and with the given environment. It forwards signals and gives
// the exit code: the command's own, 128 and the signal's number where one ended
// it, ExitNotFound or ExitNotExecutable with an error where it did not start.
// When ctx ends the command is asked to end.
func Exec(ctx context.Context, args, environment []string) (int, error) {
	if len(args) == 0 {
		return ExitFailed, errors.New("there is no command to run")
	}
	command := exec.Command(args[0], args[1:]...) //nolint:gosec // G204: running what the user named is what it is for
	command.Env = environment
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr

	// From before the start, so that a signal between ends nothing. Those that
	// our parent ignores stay ignored, for the command too.
	signals := make(chan os.Signal, 16)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)

	if err := command.Start(); err != nil {
		return startCode(err), err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	stop := ctx.Done()
	for {
		select {
		case s := <-signals:
			forward(command.Process, s)
		case <-stop:
			terminate(command.Process)
			stop = nil
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return ExitFailed, err
			}
			return exitCode(command.ProcessState), nil
		}
	}
}

func startCode(err error) int {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrDot):
		return ExitNotFound
	default:
		return ExitNotExecutable
	}
}
