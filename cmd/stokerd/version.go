package main

import (
	"fmt"

	"github.com/stokerd/stoker/internal/version"
)

type versionCommand struct{}

func (versionCommand) Run() error {
	fmt.Println("stokerd", version.String())
	return nil
}
