//go:build !windows

package main

// commands is the command line. A service is a unit of systemd or a plist of
// launchd here, and needs no commands.
type commands struct {
	everywhere
}
