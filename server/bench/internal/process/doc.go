// Package process runs a server in a process of its own, so that what it uses
// can be told from what its load uses, and measures it from outside.
//
// It owns both ends of the control channel: the child says on its standard
// output where it listens, then answers each line of its standard input with
// one line, and ends when that is closed, so that no child outlives the program
// that started it. What is served, and what the commands do, is the child's.
// Measuring works on Linux.
package process
