package postgres

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"testing"

	"github.com/stokerd/stoker/internal/partner"
)

// account is an unprivileged user of this machine.
type account struct{ uid, gid int }

// unprivileged finds whom the server can run as: it refuses to run as root.
func unprivileged(t testing.TB) *account {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil {
			return &account{uid, gid}
		}
	}
	partner.Missing(t, "an account for PostgreSQL", "run the tests as an ordinary user, or make the user postgres")
	return nil
}

// own gives the account a file.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// become makes the program run as the account, and end with the thread that
// starts it.
func (a *account) become(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
}
