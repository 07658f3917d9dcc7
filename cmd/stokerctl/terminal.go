package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxPassword bounds what is read as a password, in bytes; the broker's own
// limit is lower.
const maxPassword = 4096

// terminal is where a person or a program sits.
type terminal struct {
	in       *bufio.Reader
	out, err io.Writer
	// interactive says that a person can be asked; hidden reads a line that is
	// not shown.
	interactive bool
	hidden      func() (string, error)
}

func stdio() *terminal {
	fd := int(os.Stdin.Fd())
	return &terminal{
		in: bufio.NewReader(os.Stdin), out: os.Stdout, err: os.Stderr, interactive: term.IsTerminal(fd),
		hidden: func() (string, error) {
			text, err := term.ReadPassword(fd)
			return string(text), err
		},
	}
}

// say tells a person something that is no result.
func (t *terminal) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.err, format+"\n", args...)
}

// confirm asks before something is destroyed or changed. what completes
// "about to ...".
func (a *api) confirm(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if a.yes {
		return nil
	}
	if !a.interactive {
		return usagef("about to %s, and there is no terminal to ask at; pass --yes if that is meant", what)
	}
	_, _ = fmt.Fprintf(a.err, "about to %s; go on? [y/N] ", what)
	answer, err := a.in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// newPassword says where a new password comes from. It is never a flag's
// value: those show in process lists and shell histories.
type newPassword struct {
	Generate      bool `xor:"password" help:"Let the broker make a password, and print it once."`
	PasswordStdin bool `xor:"password" help:"Read the password from the first line of standard input."`
}

// read gives the password; "" asks the broker for one.
func (p newPassword) read(t *terminal) (string, error) {
	switch {
	case p.Generate:
		return "", nil
	case p.PasswordStdin:
		text, err := bufio.NewReader(io.LimitReader(t.in, maxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return notEmpty(strings.TrimRight(text, "\r\n"))
	case !t.interactive:
		return "", usagef("there is no terminal to ask for the password at; pass --password-stdin or --generate")
	}
	_, _ = fmt.Fprint(t.err, "new password: ")
	first, err := t.hidden()
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	_, _ = fmt.Fprint(t.err, "\nonce more: ")
	second, err := t.hidden()
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	_, _ = fmt.Fprintln(t.err)
	if first != second {
		return "", errors.New("the two differ; nothing was done")
	}
	return notEmpty(first)
}

// notEmpty keeps an empty line from asking the broker for a password.
func notEmpty(password string) (string, error) {
	if password == "" {
		return "", usagef("the password is empty; pass --generate to have one made")
	}
	return password, nil
}
