package main

// forbidCoreDumps does nothing: a crash on Windows leaves what the operating
// system was told to keep.
func forbidCoreDumps() error { return nil }
