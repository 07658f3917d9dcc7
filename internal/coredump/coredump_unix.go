//go:build unix

package coredump

import (
	"fmt"
	"syscall"
)

// Forbid forbids core dumps of this process and of those that it starts from now
// on. The limit cannot be raised again but by root.
func Forbid() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}
