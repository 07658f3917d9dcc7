package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the build: -ldflags "-X main.release=v1.2.3".
var release string

// versionCommand prints the version.
type versionCommand struct{}

// Run implements the command.
func (versionCommand) Run(to *streams) error {
	_, err := fmt.Fprintf(to.out, "stoker-agent %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	return err
}

// version is the release, or what the Go toolchain knows of the build.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
