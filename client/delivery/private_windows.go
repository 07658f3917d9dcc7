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
