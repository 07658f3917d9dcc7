//go:build !linux

package database

import "os/exec"

// account is whom the server runs as: here, as this program.
type account struct{}

func unprivileged() (*account, error) { return nil, nil } //nolint:nilnil // see account
func (*account) own(string) error     { return nil }
func (*account) become(cmd *exec.Cmd) {}
