// Package transcript keeps what a program says while a test reads along.
//
// It owns the text alone, in memory, and never writes it anywhere. Only tests
// import it.
package transcript
