//go:build !unix

package main

// forbidCoreDumps does nothing: where there are no core dumps a crash leaves
// what the operating system was told to keep.
func forbidCoreDumps() error { return nil }
