package delivery

import (
	"fmt"
	"io/fs"
)

// CheckPrivate refuses what is not a file. Who may read it is a matter of its
// access control list, which a new file inherits from its directory.
func CheckPrivate(file string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", file)
	}
	return nil
}

// checkDirectory leaves the matter to the access control list, which in a user's
// own profile is that user's.
func checkDirectory(string) error { return nil }

// isSocketElsewhere accepts a reparse point, which is what a Unix socket is in a
// Windows file system.
func isSocketElsewhere(info fs.FileInfo) bool { return info.Mode()&fs.ModeIrregular != 0 }
