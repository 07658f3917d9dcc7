package main

import (
	"fmt"
	"io"

	"github.com/stokerd/stoker/internal/version"
)

type versionCommand struct{}

func (versionCommand) Run(out io.Writer) error {
	_, err := fmt.Fprintln(out, "stokerctl", version.String())
	return err
}
