//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// forbidCoreDumps keeps the process's memory, which holds keys and passwords,
// from being written to disk should it crash. The limit cannot be raised again.
func forbidCoreDumps() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	return nil
}
