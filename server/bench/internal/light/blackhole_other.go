//go:build !linux

package light

import "errors"

// Blackhole is for Linux alone.
func (*Conn) Blackhole() error { return errors.ErrUnsupported }
