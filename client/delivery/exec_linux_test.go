package delivery

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExecTerminal presses Ctrl+C on a real terminal: the command is interrupted
// once, not twice.
func TestExecTerminal(t *testing.T) {
	keyboard, terminal := openTerminal(t)
	command := runner(t, "count")
	command.Stdin, command.Stdout, command.Stderr = terminal, terminal, terminal
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(keyboard); scanner.Scan(); {
			lines <- strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(scanner.Text()), "^C"))
		}
	}()
	wantLine(t, lines, "ready")
	if _, err := keyboard.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, lines, "got interrupt")
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantLine(t, lines, "got terminated")
	_ = command.Wait()
	if got := command.ProcessState.ExitCode(); got != 42 {
		t.Errorf("exit code %d", got)
	}
	for line := range lines {
		t.Errorf("it says %q", line)
	}
}

// openTerminal makes a pseudo-terminal: what a person types on, and what a
// program gets.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return keyboard, terminal
}
