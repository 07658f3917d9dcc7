// Package fulldisk gives tests on Linux a disk that gets full.
//
// It owns a small file system in memory, mounted for as long as a test runs, and
// the file that takes its room. Where mounting is not allowed the test ends as
// without any other partner.
package fulldisk
