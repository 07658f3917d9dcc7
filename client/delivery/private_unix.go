//go:build unix

package delivery

import (
	"fmt"
	"io/fs"
)

// CheckPrivate refuses a file that holds a secret and that others than its owner
// and group may read or write. The error says how to mend it.
func CheckPrivate(file string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", file)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s is open to every user of this machine: run chmod 600 %s", file, file)
	}
	return nil
}
