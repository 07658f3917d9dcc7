package process

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what a process has in memory, in bytes.
type Memory struct {
	// Resident is all of it, Peak the most that it ever was.
	Resident, Peak int64
}

// Memory measures the child: its resident set from smaps_rollup, which unlike
// statm is exact.
func (p *Process) Memory() (Memory, error) {
	resident, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", p.ID()), "Rss:")
	if err != nil {
		return Memory{}, err
	}
	peak, err := field(fmt.Sprintf("/proc/%d/status", p.ID()), "VmHWM:")
	return Memory{Resident: resident, Peak: peak}, err
}

// field reads a field of so many kilobytes.
func field(path, name string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		parts := strings.Fields(lines.Text())
		if len(parts) == 3 && parts[0] == name {
			n, err := strconv.ParseInt(parts[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// Descriptors counts the child's open files.
func (p *Process) Descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.ID()))
	return len(entries), err
}
