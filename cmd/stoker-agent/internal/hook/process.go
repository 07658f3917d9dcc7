package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// grace is how long a command has to end by itself once it was asked to.
const grace = 2 * time.Second

// runProcess runs a command to its end. What it prints to standard error goes to
// the agent's own, as it is: a pipe of ours could be kept open by a grandchild.
func runProcess(ctx context.Context, args, environment []string) error {
	command := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // G204: running what the configuration names is what it is for
	command.Env = environment
	command.Stderr = os.Stderr
	command.WaitDelay = grace
	separate(command)
	if err := command.Start(); err != nil {
		return err
	}
	err := command.Wait()
	if ctx.Err() != nil {
		sweep(command)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return fmt.Errorf("exit code %d", exit.ExitCode())
	}
	return err
}
