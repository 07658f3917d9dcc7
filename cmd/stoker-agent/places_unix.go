//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// stopSignals end a command in an orderly way.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// userPlace is the user's directory for what need not outlive a login.
func userPlace() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if os.Getuid() == 0 {
		return "/run"
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return dir
	}
	return filepath.Join(os.TempDir(), "stoker-"+strconv.Itoa(os.Getuid()))
}

// setVariable is the shell's line that sets a variable, to text that needs no
// quotes.
func setVariable(name, value string) string { return "export " + name + "=" + value }

// fileContent is the shell's expression for what is in a file.
func fileContent(file string) string { return `"$(cat ` + file + `)"` }
