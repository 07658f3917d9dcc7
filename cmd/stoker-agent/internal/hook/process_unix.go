//go:build unix

package hook

import (
	"os/exec"
	"syscall"
)

// separate gives the command a process group of its own, so that what it has
// started ends with it, and a terminal's interrupt is ours alone.
func separate(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
}

// sweep ends what is left of the group.
func sweep(command *exec.Cmd) {
	// It fails where nothing is left.
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
}
