//go:build unix

package delivery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// listenOwner listens on a socket that its owner alone can connect to.
func listenOwner(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := checkDirectory(filepath.Dir(socket)); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := clearSocket(socket); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), listener.Close())
	}
	return listener, nil
}

// checkDirectory refuses a directory that others may enter.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is open to other users: use a directory of your own, with mode 700", dir)
	}
	return nil
}

// clearSocket removes a socket on which nobody listens.
func clearSocket(socket string) error {
	info, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there and no socket: remove it, or choose another place", socket)
	}
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("another agent is serving on %s: stop it, or choose another place", socket), conn.Close())
	}
	return os.Remove(socket)
}

// dialOwner connects to the agent on a socket. Keys of a stranger's choosing
// would send a backup into a stranger's bucket, so a socket of one is refused.
func dialOwner(ctx context.Context, socket string) (net.Conn, error) {
	info, err := os.Stat(filepath.Dir(socket))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && !trusted(stat.Uid, os.Getuid()) {
		return nil, fmt.Errorf("%s: %w", filepath.Dir(socket), errStranger)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	return conn, nil
}

// trusted says whether a user may ask an agent whose directory has that owner:
// one's own agent, root's, and for root, who can become anybody, any.
func trusted(owner uint32, user int) bool {
	return owner == 0 || user == 0 || int(owner) == user
}
