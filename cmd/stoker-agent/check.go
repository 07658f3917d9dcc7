package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// checkCommand checks the configuration file.
type checkCommand struct {
	connection
}

// Help implements kong's interface for more help.
func (checkCommand) Help() string {
	return `It reports everything that is wrong with the file at once, with line and column, and
looks at the files that it names. It opens no connection. The exit code is 0 if
"stoker-agent run" would start with it.`
}

// Run implements the command.
func (c checkCommand) Run(ctx context.Context, to *surroundings) error {
	f, err := c.file()
	if err != nil {
		return err
	}
	if f == nil {
		return errors.New("there is no configuration file: name it with --config")
	}
	s, err := runCommand{connection: connection{Config: f.Path}, Renew: true}.settings(ctx, to, io.Discard)
	if err != nil {
		return err
	}
	grants := 0
	for _, user := range s.Users {
		grants += len(user.Grants)
	}
	held := "all grants"
	if grants > 0 {
		held = fmt.Sprintf("%d grants", grants)
	}
	_, err = fmt.Fprintf(to.out, "%s is good: %d users, %s\n", f.Path, len(s.Users), held)
	return err
}
