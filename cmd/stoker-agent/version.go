package main

import (
	"fmt"

	"github.com/stokerd/stoker/internal/version"
)

// versionCommand prints the version.
type versionCommand struct{}

// Run implements the command.
func (versionCommand) Run(to *surroundings) error {
	_, err := fmt.Fprintln(to.out, "stoker-agent", version.String())
	return err
}
