package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"
)

// stopSignals end a command in an orderly way. Go sends SIGTERM when the console
// closes.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// userPlace is the user's own directory for programs' data, which others may not
// enter.
func userPlace() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return dir
	}
	return os.TempDir()
}

// pipePrefix begins the names of our pipes.
const pipePrefix = `\\.\pipe\stoker-agent-`

// defaultSocket is the pipe on which a user's agent serves that user's
// subcommands. Pipes have no directories, so the user is in the name.
func defaultSocket() string {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return pipePrefix + "user" // of a process that cannot read its own token; it works all the same
	}
	return pipePrefix + user.User.Sid.String()
}

// machineConfig is the directory of a service's configuration.
func machineConfig() string {
	if dir := os.Getenv("ProgramData"); dir != "" {
		return filepath.Join(dir, "stoker")
	}
	return `C:\ProgramData\stoker`
}

// serviceSocket is where the agent serves that is a service of the machine. Its
// name is fixed, since whoever asks does not know the service's account.
func serviceSocket() string { return pipePrefix + "service" }

// assign is PowerShell's line that sets a variable to an expression.
func assign(name, expression string) string { return "$env:" + name + " = " + expression }

// fileContent is PowerShell's expression for what is in a file.
func fileContent(file string) string { return "(Get-Content -Raw " + quote(file) + ")" }

// quote makes a text one string for PowerShell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
