package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/admintest"
)

// person sits at a terminal in this process.
type person struct {
	*admintest.Broker
	ca, cert, key string
	// passwords are typed where they do not show.
	passwords []string
}

func sit(t *testing.T) *person {
	b := admintest.Start(t, admintest.Options{})
	ca, cert, key := b.Files(t, admintest.Admin)
	return &person{Broker: b, ca: ca, cert: cert, key: key}
}

// types runs a command with what the person types.
func (p *person) types(ctx context.Context, typed string, out io.Writer, args ...string) (code int, errors string) {
	var stderr bytes.Buffer
	code = run(ctx, append([]string{"--broker", p.Address, "--ca", p.ca, "--cert", p.cert, "--key", p.key}, args...), &terminal{
		in: bufio.NewReader(strings.NewReader(typed)), out: out, err: &stderr, interactive: true, hidden: p.hidden,
	})
	return code, stderr.String()
}

func (p *person) hidden() (string, error) {
	if len(p.passwords) == 0 {
		return "", io.ErrUnexpectedEOF
	}
	first := p.passwords[0]
	p.passwords = p.passwords[1:]
	return first, nil
}

// succeeds gives what a command prints.
func (p *person) succeeds(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if code, problems := p.types(t.Context(), "", &out, args...); code != exitDone {
		t.Fatalf("%v: exit code %d: %s", args, code, problems)
	}
	return out.String()
}

// What destroys is asked for, and only a clear yes is one.
func TestConfirmation(t *testing.T) {
	p := sit(t)
	p.succeeds(t, "tenant", "create", "acme")
	for _, no := range []string{"", "\n", "n\n", "no\n", "acme\n", "yep\n"} {
		code, problems := p.types(t.Context(), no, io.Discard, "tenant", "delete", "acme")
		if code != exitFailed || !strings.Contains(problems, "delete tenant acme with its users, agents and grants; go on? [y/N]") ||
			!strings.Contains(problems, "nothing was done") {
			t.Errorf("%q: exit code %d: %s", no, code, problems)
		}
	}
	p.succeeds(t, "tenant", "get", "acme")
	if code, problems := p.types(t.Context(), " Yes \n", io.Discard, "tenant", "delete", "acme"); code != exitDone {
		t.Errorf("exit code %d: %s", code, problems)
	}
	if code, _ := p.types(t.Context(), "", io.Discard, "tenant", "get", "acme"); code != exitNotFound {
		t.Errorf("exit code %d after the removal", code)
	}
}

func TestPasswordPrompt(t *testing.T) {
	p := sit(t)
	p.succeeds(t, "tenant", "create", "acme")
	for name, attempt := range map[string]struct {
		passwords []string
		code      int
		says      string
	}{
		"twice the same": {[]string{"correct-horse-staple", "correct-horse-staple"}, exitDone, "new password: \nonce more: \n"},
		"two":            {[]string{"correct-horse-staple", "correct-horse-stable"}, exitFailed, "the two differ; nothing was done"},
		"none":           {[]string{"", ""}, exitUsage, "the password is empty"},
		"hung up":        {nil, exitFailed, "read the password"},
		"hung up later":  {[]string{"correct-horse-staple"}, exitFailed, "read the password"},
	} {
		t.Run(name, func(t *testing.T) {
			p.passwords = attempt.passwords
			login := strings.ReplaceAll(name, " ", "-") + "@acme"
			code, problems := p.types(t.Context(), "", io.Discard, "user", "create", login)
			if code != attempt.code || !strings.Contains(problems, attempt.says) || strings.Contains(problems, "horse") {
				t.Errorf("exit code %d: %s", code, problems)
			}
		})
	}
}

// A password that the broker made is printed even if a later step fails, and
// where nothing can be printed apply stops.
func TestApplyWithNowhereToPrint(t *testing.T) {
	p := sit(t)
	file := "tenants:\n  acme:\n    users:\n      a: {}\n      b: {}\n"
	code, problems := p.types(t.Context(), file, &full{room: 90}, "apply", "-f", "-", "--yes")
	if code != exitFailed || !strings.Contains(problems, "no room") {
		t.Errorf("exit code %d: %s", code, problems)
	}
}

// full is an output with little room.
type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errors.New("no room left")
	}
	return len(p), nil
}
