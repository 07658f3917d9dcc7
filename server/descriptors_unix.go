//go:build unix

package server

import "syscall"

// manyDescriptors stands for no limit.
const manyDescriptors = 1 << 20

// descriptors is how many descriptors the process may have. Go's runtime has
// raised the limit as far as it may by now.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > manyDescriptors {
		return manyDescriptors
	}
	return int(limit.Cur)
}
