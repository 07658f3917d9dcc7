//go:build !unix

package coredump

// Forbid does nothing: where there are no core dumps a crash leaves what the
// operating system was told to keep.
func Forbid() error { return nil }
