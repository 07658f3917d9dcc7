// Package password finds a user's password: in a file, among the credentials
// that systemd hands to a service, or in the keyring of the operating system.
//
// It owns the reading, and the refusal of places that others can read. It keeps
// no password, logs none, and none is in its errors.
package password
