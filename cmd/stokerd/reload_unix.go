//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// reloads receives a value each time somebody asks the broker to read its
// configuration again, until stop is called.
func reloads() (asked <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}
