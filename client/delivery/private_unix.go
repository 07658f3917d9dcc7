//go:build unix

package delivery

import (
	"fmt"
	"io/fs"
	"os"
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

// checkDirectory refuses a directory that others may enter.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is open to other users: use a directory of your own, with mode 700", dir)
	}
	return nil
}

// isSocketElsewhere is for systems whose sockets do not look like such.
func isSocketElsewhere(fs.FileInfo) bool { return false }
