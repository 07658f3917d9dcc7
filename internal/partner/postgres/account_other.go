//go:build !linux

package postgres

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stokerd/stoker/internal/partner"
)

// account is unused here: the server runs as whoever runs the tests.
type account struct{}

func unprivileged(t testing.TB) *account {
	t.Helper()
	if os.Getuid() == 0 {
		partner.Missing(t, "an account for PostgreSQL", "run the tests as an ordinary user")
	}
	return nil
}

func (*account) own(string) error { return nil }

func (*account) become(*exec.Cmd) {}
