//go:build unix && !darwin

package password

import (
	"strings"
	"testing"

	"github.com/zalando/go-keyring"
)

// Without a session bus there is no keyring, and none is started.
func TestNoKeyring(t *testing.T) {
	keyring.MockInit()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	k := System()
	_, get := k.Get("nightly@acme")
	for _, err := range []error{get, k.Set("nightly@acme", "secret"), k.Delete("nightly@acme")} {
		if err == nil || !strings.Contains(err.Error(), "no session bus") {
			t.Errorf("%v", err)
		}
	}
}
