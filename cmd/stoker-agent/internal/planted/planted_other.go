//go:build !windows

package planted

// Check does nothing: root alone writes to the places of the machine here.
func Check(string) error { return nil }
