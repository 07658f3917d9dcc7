//go:build !linux

package process

import (
	"errors"
	"time"
)

// CPU cannot be measured here.
func (p *Process) CPU() (time.Duration, error) {
	return 0, errors.New("processor time is measured on Linux alone")
}
