package light

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Blackhole makes the connection a half-open one: from now on nothing that the
// server sends arrives, not even what only the two kernels say to each other,
// and nobody tells the server. It lasts until the process closes the
// connection.
func (c *Conn) Blackhole() error {
	socket, ok := c.tls.NetConn().(syscall.Conn)
	if !ok {
		return errors.New("the connection is no socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	// A filter that accepts no byte of any packet; it comes before TCP.
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	if err = errors.Join(err, set); err != nil {
		return fmt.Errorf("lose what the server sends: %w", err)
	}
	return nil
}
