//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// forbidCoreDumps keeps the process's memory, which holds credentials and at times
// a password, from being written to disk should it crash. Hooks inherit it.
func forbidCoreDumps() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}
