//go:build !unix

package main

import "os"

// reloads never receives: there is no such signal.
func reloads() (asked <-chan os.Signal, stop func()) { return nil, func() {} }
