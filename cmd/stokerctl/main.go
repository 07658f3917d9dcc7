// Command stokerctl administers a Stoker broker. See `stokerctl --help`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Connection connection `embed:"" group:"Connection"`
	Output     string     `short:"o" enum:"table,json" default:"table" help:"table for people, json for programs."`
	Yes        bool       `short:"y" help:"Do not ask before something is destroyed."`

	Tenant      tenantCommands      `cmd:"" help:"Customers."`
	User        userCommands        `cmd:"" help:"Logins of a tenant."`
	Agent       agentCommands       `cmd:"" help:"Enrolled installations of a tenant, and their certificates."`
	Location    locationCommands    `cmd:"" help:"Buckets and how to reach them."`
	Grant       grantCommands       `cmd:"" help:"What a tenant may reach."`
	Account     accountCommands     `cmd:"" help:"The AWS accounts of the broker's configuration."`
	Policy      policyCommands      `cmd:"" help:"What grants come to."`
	Apply       applyCommand        `cmd:"" help:"Make the broker's resources what a file says."`
	Export      exportCommand       `cmd:"" help:"Write the broker's resources as a file for apply."`
	Status      statusCommand       `cmd:"" help:"Show on one screen how the broker is doing."`
	Doctor      doctorCommand       `cmd:"" help:"Check the broker, its accounts and buckets; with --grant, try a grant."`
	Streams     streamsCommand      `cmd:"" help:"List the streams that are open on the broker that answers."`
	Revoke      revokeCommands      `cmd:"" help:"Cut somebody off, with a reason."`
	Revocations revocationsCommand  `cmd:"" help:"List revocations, newest first."`
	Audit       auditCommands       `cmd:"" help:"Read and verify the audit trail."`
	Completion  completionCommand   `cmd:"" help:"Print a completion script for a shell."`
	Version     versionCommand      `cmd:"" help:"Print the version."`
	Complete    completeWordCommand `cmd:"" name:"__complete" hidden:""`
}

const description = `Administers a Stoker broker with an operator's certificate.

Exit codes: 0 done, 1 failed, 2 the command line or a file is wrong, 3 refused by the broker, 4 the broker cannot be reached or is busy, 5 there is no such resource, 6 the resource is not as expected (exists, in use, changed meanwhile).`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], stdio())
	stop()
	os.Exit(code)
}

// run parses and calls. It gives the exit code.
func run(ctx context.Context, args []string, t *terminal) int {
	var c cli
	var used *api // what a command opened
	parser, err := kong.New(&c, kong.Name("stokerctl"), kong.Description(description),
		kong.Writers(t.out, t.err), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(t.out, (*io.Writer)(nil)),
		kong.BindToProvider(func() (*api, error) {
			var err error
			used, err = c.open(ctx, t)
			return used, err
		}))
	if err != nil {
		panic(err) // the commands themselves are wrong: any test finds it
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(t.err, "stokerctl: %v\nhint: see stokerctl --help\n", err)
		return exitUsage
	}
	err = parsed.Run(parser.Model)
	if used != nil {
		used.close()
	}
	return t.report(err)
}
