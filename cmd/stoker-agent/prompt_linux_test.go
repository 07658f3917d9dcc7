package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stokerd/stoker/internal/polling"
	"github.com/stokerd/stoker/internal/transcript"
)

// terminal is a pseudo-terminal with stoker-agent on it.
type terminal struct {
	keyboard *os.File
	command  *exec.Cmd
	screen   transcript.Transcript
}

func (t *terminal) shows(text string) bool { return strings.Contains(t.screen.String(), text) }

// echoes says whether the terminal shows what is typed.
func (t *terminal) echoes(tb testing.TB) bool {
	tb.Helper()
	state, err := unix.IoctlGetTermios(int(t.keyboard.Fd()), unix.TCGETS)
	if err != nil {
		tb.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func startTerminal(tb *testing.T, w *world, args ...string) *terminal {
	tb.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		tb.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		tb.Fatal(err)
	}
	// Kept open, so that the terminal outlives the command.
	device, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	t := &terminal{keyboard: keyboard, command: w.command(tb, []string{"STOKER_PASSWORD_FILE="}, args...)}
	t.command.Stdin, t.command.Stdout, t.command.Stderr = device, device, device
	t.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := t.command.Start(); err != nil {
		tb.Fatal(err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buffer := make([]byte, 1024)
		for {
			n, err := keyboard.Read(buffer)
			if _, _ = t.screen.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	tb.Cleanup(func() {
		_ = device.Close()
		<-copied
		_ = keyboard.Close()
	})
	return t
}

func TestPrompt(t *testing.T) {
	w := newWorld(t)
	console := startTerminal(t, w, "whoami")
	polling.Until(t.Context(), t, "a prompt", func() bool { return console.shows("Password of nightly@acme: ") && !console.echoes(t) })
	if _, err := console.keyboard.WriteString(w.broker.Password() + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := console.command.Wait(); err != nil {
		t.Error(err)
	}
	polling.Until(t.Context(), t, "an answer", func() bool { return console.shows("nas-1") })
	if console.shows("CANARY") {
		t.Error("the password is on the screen")
	}
}

// TestPromptInterrupted: after Ctrl+C at the prompt the terminal is as it was.
func TestPromptInterrupted(t *testing.T) {
	w := newWorld(t)
	console := startTerminal(t, w, "whoami")
	polling.Until(t.Context(), t, "a prompt", func() bool { return console.shows("Password of") && !console.echoes(t) })
	if _, err := console.keyboard.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if err := console.command.Wait(); err == nil {
		t.Error("it ended well")
	}
	if !console.echoes(t) {
		t.Error("the terminal shows nothing any more")
	}
}

func TestEnrollPrompt(t *testing.T) {
	w, token, env := joining(t)
	w.env = append(w.env, env...)
	console := startTerminal(t, w, "enroll", "--out", w.dir+"/new")
	polling.Until(t.Context(), t, "a prompt", func() bool { return console.shows("Join token: ") && !console.echoes(t) })
	if _, err := console.keyboard.WriteString(token + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := console.command.Wait(); err != nil {
		t.Error(err)
	}
	polling.Until(t.Context(), t, "an answer", func() bool { return console.shows("enrolled as") })
	if console.shows(token[20:60]) {
		t.Error("the token is on the screen")
	}
}
