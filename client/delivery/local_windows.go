package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// pipePrefix begins the names of pipes of this machine.
const pipePrefix = `\\.\pipe\`

// serviceAccount is what stoker-agent runs as when it is a service. Windows gives
// the account to that service alone.
const serviceAccount = `NT SERVICE\stoker-agent`

// listenOwner listens on a pipe that on this machine alone its owner can connect
// to, and administrators, who can do as any user does. It fails where there is one of that name: then another agent
// serves, or somebody waits for our subcommands.
func listenOwner(pipe string) (net.Listener, error) {
	if err := checkPipe(pipe); err != nil {
		return nil, err
	}
	user, err := currentUser()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	// The owner is named because an administrator's pipes would belong to all
	// administrators otherwise. P keeps inherited rights out, GA is all rights, and
	// GRGW is asking.
	listener, err := winio.ListenPipe(pipe, &winio.PipeConfig{SecurityDescriptor: "O:" + user.String() + "D:P(A;;GA;;;" + user.String() + ")(A;;GRGW;;;BA)"})
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("another agent is serving on %s: stop it, or choose another place: %w", pipe, err)
	}
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return listener, nil
}

func checkPipe(pipe string) error {
	name, found := strings.CutPrefix(strings.ToLower(pipe), pipePrefix)
	if !found || name == "" {
		return fmt.Errorf("%q is not the name of a pipe: use %sNAME", pipe, pipePrefix)
	}
	return nil
}

// currentUser gives the user that this process runs as.
func currentUser() (*windows.SID, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	return user.User.Sid, nil
}

// dialOwner connects to the agent on a pipe. Any user can make a pipe of any
// name while no agent runs, and keys of a stranger's choosing would send a backup
// into a stranger's bucket: the pipe's owner, which a stranger cannot forge, must
// be ourselves, the system or the agent's service. The server learns nothing of
// us: the connection is anonymous.
func dialOwner(ctx context.Context, pipe string) (net.Conn, error) {
	if err := checkPipe(pipe); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	conn, err := winio.DialPipeContext(ctx, pipe)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("%s: %w", pipe, errStranger)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	if err := checkPipeOwner(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", pipe, err), conn.Close())
	}
	return conn, nil
}

func checkPipeOwner(conn net.Conn) error {
	handle, ok := conn.(interface{ Fd() uintptr })
	if !ok {
		return errors.New("a connection without a handle")
	}
	descriptor, err := windows.GetSecurityInfo(windows.Handle(handle.Fd()), windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("whose it is: %w", err)
	}
	owner, _, err := descriptor.Owner()
	if err != nil {
		return fmt.Errorf("whose it is: %w", err)
	}
	user, err := currentUser()
	if err != nil {
		return fmt.Errorf("who we are: %w", err)
	}
	if owner.Equals(user) || owner.IsWellKnown(windows.WinLocalSystemSid) {
		return nil
	}
	// Where there is no such service there is no such account.
	if service, _, _, err := windows.LookupSID("", serviceAccount); err == nil && owner.Equals(service) {
		return nil
	}
	return errStranger
}
