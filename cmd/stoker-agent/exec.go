package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
)

// execCommand runs a command with credentials.
type execCommand struct {
	connection
	logging
	Grant string        `short:"g" env:"STOKER_GRANT" placeholder:"NAME" help:"Grant to use. Without it, the user's only one."`
	Env   bool          `help:"Put static keys into the environment, for tools that know nothing better. They are never refreshed."`
	Wait  time.Duration `env:"STOKER_WAIT" default:"1m" help:"How long to wait for the first credential."`
	Args  []string      `arg:"" passthrough:"" name:"command" help:"Command and its arguments, after --."`
}

// Help implements kong's interface for more help.
func (execCommand) Help() string {
	return `The command finds an endpoint in its environment that answers with the present
credential each time it is asked: the AWS CLI and SDKs, boto3, restic, kopia and
rclone (with env_auth) refresh from it. Keys, profiles and STOKER_ variables of
this environment are kept from it, and so is the shared-credentials file.

The exit code is the command's, 128 and a signal's number if one ended it, 127 if
it was not found, 126 if it cannot be executed, and 125 if stoker-agent failed.`
}

// Run implements the command.
func (c execCommand) Run(ctx context.Context, to *surroundings) error {
	code, err := c.run(ctx, to)
	if err == nil && code == 0 {
		return nil
	}
	return &codedError{code: code, err: err}
}

func (c execCommand) run(ctx context.Context, to *surroundings) (int, error) {
	args := c.Args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return exitUsage, errors.New("name the command to run after --")
	}
	// Until the command runs, a signal ends us; then it is the command's.
	starting, started := signal.NotifyContext(ctx, stopSignals...)
	defer started()
	log, err := c.logger(to.err, slog.LevelWarn)
	if err != nil {
		return delivery.ExitFailed, err
	}
	var wanted []string
	if c.Grant != "" {
		wanted = []string{c.Grant}
	}
	config, err := c.config(starting, to, log, true, wanted...)
	if err != nil {
		return delivery.ExitFailed, err
	}
	if config.Grants, err = c.grants(starting, config); err != nil {
		return delivery.ExitFailed, err
	}
	if file, setting := delivery.ShadowingConfig(os.Environ()); file != "" && !c.Env {
		log.Warn("the default profile has credentials of its own, which most tools prefer: remove them, or set AWS_CONFIG_FILE to another file",
			"file", file, "setting", setting)
	}
	if c.Env {
		return c.static(starting, started, config, log, args)
	}
	return c.endpoint(ctx, starting, started, config, log, args)
}

// grants names the one grant that is wanted.
func (c execCommand) grants(ctx context.Context, config client.Config) ([]string, error) {
	if c.Grant != "" {
		return []string{c.Grant}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	grants, err := client.ListGrants(ctx, config)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range grants {
		names = append(names, g.Name)
	}
	switch len(names) {
	case 0:
		return nil, errors.New("the user has no grant: ask the provider")
	case 1:
		return names, nil
	default:
		return nil, fmt.Errorf("the user has several grants: choose one with --grant (%s)", strings.Join(names, ", "))
	}
}

// static runs the command with keys that do not change.
func (c execCommand) static(ctx context.Context, started func(), config client.Config, log *slog.Logger, args []string) (int, error) {
	waiting, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	fetched, err := client.Fetch(waiting, config, 0)
	if err != nil {
		return delivery.ExitFailed, err
	}
	if len(fetched) != 1 {
		return delivery.ExitFailed, fmt.Errorf("the broker answered %d credentials", len(fetched))
	}
	credential := fetched[0]
	log.Warn("these keys are static: the command fails once they have expired",
		"expires", credential.Expires, "in", time.Until(credential.Expires).Truncate(time.Second).String())
	variables := append(delivery.StaticVariables(credential), delivery.RegionVariables(credential)...)
	started()
	return delivery.Exec(context.WithoutCancel(ctx), args, delivery.Environment(os.Environ(), variables...))
}

// endpoint runs the command beside an endpoint of its own.
func (c execCommand) endpoint(ctx, starting context.Context, started func(), config client.Config, log *slog.Logger, args []string) (code int, err error) {
	source, err := client.New(ctx, config)
	if err != nil {
		return delivery.ExitFailed, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	waiting, cancel := context.WithTimeout(starting, c.Wait)
	defer cancel()
	if err := source.Wait(waiting); err != nil {
		return delivery.ExitFailed, err
	}
	credential, err := source.Credential("")
	if err != nil {
		return delivery.ExitFailed, err
	}
	endpoint, err := delivery.Listen("127.0.0.1:0", source, log)
	if err != nil {
		return delivery.ExitFailed, err
	}
	defer func() { err = errors.Join(err, endpoint.Close()) }()
	token := endpoint.Admit("exec", credential.Grant)
	variables := append(endpoint.Variables(credential.Grant, token), delivery.RegionVariables(credential)...)
	started()
	return delivery.Exec(ctx, args, delivery.Environment(os.Environ(), variables...))
}
