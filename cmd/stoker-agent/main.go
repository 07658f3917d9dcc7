package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/stokerd/stoker/cmd/stoker-agent/internal/config"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
)

// exitUsage is the exit code for a command line that makes no sense.
const exitUsage = 2

// everywhere are the commands of all systems.
type everywhere struct {
	Run               runCommand               `cmd:"" help:"Hold the streams and serve the credentials endpoint on loopback."`
	Status            statusCommand            `cmd:"" help:"Say how the running agent stands."`
	Check             checkCommand             `cmd:"" help:"Check the configuration file, without connecting."`
	Exec              execCommand              `cmd:"" help:"Run a command with credentials that refresh by themselves."`
	CredentialProcess credentialProcessCommand `cmd:"" name:"credential-process" help:"Answer once, as the credential_process of an AWS profile."`
	Watch             watchCommand             `cmd:"" help:"Print what the broker pushes."`
	Enroll            enrollCommand            `cmd:"" help:"Get this agent's first certificate for a join token."`
	Login             loginCommand             `cmd:"" help:"Put a user's password into the operating system's keyring."`
	Logout            logoutCommand            `cmd:"" help:"Take a user's password out of the keyring."`
	Whoami            whoamiCommand            `cmd:"" help:"Say who the broker takes this agent for."`
	Version           versionCommand           `cmd:"" help:"Print the version."`
}

// surroundings are what a command finds around it. Credentials and answers go to
// out, everything for people to err.
type surroundings struct {
	out, err io.Writer
	keyring  password.Keyring
}

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], &surroundings{out: os.Stdout, err: os.Stderr, keyring: password.System()}))
}

// execute runs a command line and gives the exit code.
func execute(ctx context.Context, args []string, to *surroundings) int {
	var line commands
	parser, err := kong.New(&line,
		kong.Name("stoker-agent"),
		kong.Description("Keeps the tools on this machine supplied with short-lived AWS credentials."),
		variables(),
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

// variables are what the help texts of flags refer to.
func variables() kong.Vars {
	return kong.Vars{
		"token_file": defaultPlace("token"), "socket": defaultSocket(), "sockets": strings.Join(socketPlaces(), ", "),
		"config_places": strings.Join(configPlaces(), ", "), "listen": config.DefaultListen,
	}
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
func exitCode(to *surroundings, err error) int {
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
