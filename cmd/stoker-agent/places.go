package main

import (
	"os"
	"path/filepath"
	"strings"
)

// defaultPlace is where an agent keeps a file that its own subcommands and tools
// find: in a directory that only its user may enter.
func defaultPlace(name string) string {
	// systemd makes this directory for a service.
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(userPlace(), "stoker-agent", name)
}

// setVariable is the shell's line that sets a variable to a text.
func setVariable(name, text string) string { return assign(name, quote(text)) }
