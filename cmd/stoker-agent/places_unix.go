//go:build unix

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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
		return filepath.Dir(filepath.Dir(serviceSocket()))
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return dir
	}
	return filepath.Join(os.TempDir(), "stoker-"+strconv.Itoa(os.Getuid()))
}

// defaultSocket is the socket on which a user's agent serves that user's
// subcommands.
func defaultSocket() string { return defaultPlace("agent.sock") }

// machineConfig is the directory of a service's configuration.
func machineConfig() string {
	if runtime.GOOS == "darwin" {
		return "/Library/Application Support/stoker"
	}
	return "/etc/stoker"
}

// serviceSocket is where the agent serves that is a service of the machine.
func serviceSocket() string {
	if runtime.GOOS == "darwin" {
		return "/var/run/stoker-agent/agent.sock"
	}
	return "/run/stoker-agent/agent.sock"
}

// assign is the shell's line that sets a variable to an expression.
func assign(name, expression string) string { return "export " + name + "=" + expression }

// fileContent is the shell's expression for what is in a file.
func fileContent(file string) string { return `"$(cat ` + quote(file) + `)"` }

// quote makes a text one word for the shell, and leaves alone what is one.
func quote(text string) string {
	if text != "" && strings.Trim(text, plainCharacters) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

const plainCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:@%+=,"
