//go:build unix && !darwin

package password

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// reachable says why the keyring cannot be asked, if there is no session bus. The
// library would start one, which an agent without a desktop has no use for.
func reachable() error {
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
	}
	if _, err := os.Stat(filepath.Join(dir, "bus")); err != nil {
		return errors.New("there is no session bus, and so no keyring: use a password file, or a credential of systemd")
	}
	return nil
}
