package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// exitUsage is the exit code for a command line that makes no sense.
const exitUsage = 2

// commands is the command line.
type commands struct {
	Run               runCommand               `cmd:"" help:"Hold the stream and serve the credentials endpoint on loopback."`
	Exec              execCommand              `cmd:"" help:"Run a command with credentials that refresh by themselves."`
	CredentialProcess credentialProcessCommand `cmd:"" name:"credential-process" help:"Answer once, as the credential_process of an AWS profile."`
	Watch             watchCommand             `cmd:"" help:"Print what the broker pushes."`
	Enroll            enrollCommand            `cmd:"" help:"Get this agent's first certificate for a join token."`
	Whoami            whoamiCommand            `cmd:"" help:"Say who the broker takes this agent for."`
	Version           versionCommand           `cmd:"" help:"Print the version."`
}

// streams are what a command prints to. Credentials and answers go to out,
// everything for people to err.
type streams struct {
	out, err io.Writer
}

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], &streams{out: os.Stdout, err: os.Stderr}))
}

// execute runs a command line and gives the exit code.
func execute(ctx context.Context, args []string, to *streams) int {
	var line commands
	parser, err := kong.New(&line,
		kong.Name("stoker-agent"),
		kong.Description("Keeps the tools on this machine supplied with short-lived AWS credentials."),
		kong.Vars{"token_file": defaultPlace("token"), "socket": defaultSocket()},
		kong.Writers(to.out, to.err),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintf(to.err, "stoker-agent: %v\n", err)
		return exitUsage
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(to.err, "stoker-agent: %v\n", err)
		fmt.Fprintln(to.err, "see stoker-agent --help")
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	return exitCode(to, command.Run(to))
}

// codedError is an error with an exit code of its own. With a nil error there is
// nothing to print.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// exitCode prints an error and gives its exit code.
func exitCode(to *streams, err error) int {
	code := 1
	var coded *codedError
	if errors.As(err, &coded) {
		code, err = coded.code, coded.err
	}
	switch {
	case err == nil && coded == nil:
		return 0
	case err != nil:
		fmt.Fprintf(to.err, "stoker-agent: %v\n", err)
	}
	return code
}
