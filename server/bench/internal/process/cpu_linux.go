package process

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is how much processor time the child has used, in user and kernel mode,
// to the nanosecond: /proc/PID/stat counts in steps of ten milliseconds.
func (p *Process) CPU() (time.Duration, error) {
	// The number of a process's clock, as clock_getcpuclockid makes it: the
	// complement of its id, and the kind of clock in the lowest three bits.
	const scheduled = 2
	clock := int32(^uint32(p.ID())<<3 | scheduled)
	var at unix.Timespec
	if err := unix.ClockGettime(clock, &at); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", p.ID(), err)
	}
	return time.Duration(at.Nano()), nil
}
