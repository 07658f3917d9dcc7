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

// configFile is the name of the configuration file, in its place.
const configFile = "stoker-agent.yaml"

// configPlaces are where a configuration file is looked for: the user's own place,
// then the machine's.
func configPlaces() []string {
	var places []string
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "stoker", configFile))
	}
	return append(places, filepath.Join(machineConfig(), configFile))
}

// socketPlaces are where a running agent is looked for: the user's own, then the
// machine's service.
func socketPlaces() []string {
	places := []string{defaultSocket()}
	if service := serviceSocket(); service != places[0] {
		places = append(places, service)
	}
	return places
}

// setVariable is the shell's line that sets a variable to a text.
func setVariable(name, text string) string { return assign(name, quote(text)) }

// setFromFile is the shell's line that sets a variable to what is in a file.
func setFromFile(name, file string) string { return assign(name, fileContent(file)) }
