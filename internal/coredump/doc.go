// Package coredump keeps secrets that a process has in memory from being written
// to disk should it crash.
//
// It owns the process's limit, which what the process starts inherits, and changes
// nothing else of it.
package coredump
