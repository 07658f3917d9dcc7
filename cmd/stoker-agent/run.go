package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"sync"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
)

// runCommand is the agent that stays.
type runCommand struct {
	connection
	logging
	Grant           []string          `short:"g" env:"STOKER_GRANT" sep:"," placeholder:"NAME" help:"Grant to hold. Without it, all of the user's."`
	Listen          string            `env:"STOKER_LISTEN" default:"127.0.0.1:9797" placeholder:"ADDRESS" help:"Loopback address of the endpoint (${default})."`
	TokenFile       string            `env:"STOKER_TOKEN_FILE" default:"${token_file}" placeholder:"FILE" help:"File with the endpoint's token, made if need be (${default})."`
	Socket          string            `env:"STOKER_SOCKET" default:"${socket}" placeholder:"FILE" help:"Socket, or on Windows pipe, for stoker-agent's own subcommands (${default})."`
	CredentialsFile string            `env:"STOKER_CREDENTIALS_FILE" placeholder:"FILE" help:"Shared-credentials file to keep profiles in too, such as ~/.aws/credentials."`
	Profile         map[string]string `placeholder:"GRANT=NAME" help:"Profile of a grant in that file; without it stoker-GRANT."`
	Renew           bool              `env:"STOKER_RENEW" default:"true" negatable:"" help:"Renew the agent's certificate in good time and replace its files."`
}

// Help implements kong's interface for more help.
func (runCommand) Help() string {
	return `It prints what to set for tools to use the endpoint. The AWS CLI and SDKs, boto3,
restic, kopia and rclone (with env_auth) refresh from it; while the broker is away
it answers with the last good credential until that expires.

Profiles in a shared-credentials file are second best: the format knows no expiry,
and most long-running tools keep the keys that they read first. restic reads it
again for each request.`
}

// Run implements the command.
func (c runCommand) Run(ctx context.Context, to *streams) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	log, err := c.logger(to.err, slog.LevelInfo)
	if err != nil {
		return err
	}
	config, err := c.config(ctx, to, log, true)
	if err != nil {
		return err
	}
	config.Grants, config.Renew = c.Grant, c.Renew
	profiles, err := c.profiles()
	if err != nil {
		return err
	}
	a, err := open(ctx, settings{
		config: config, listen: c.Listen, tokenFile: c.TokenFile, socket: c.Socket, profiles: profiles, log: log,
	})
	if err != nil {
		return err
	}
	if err := a.advise(to.out); err != nil {
		return errors.Join(err, a.close())
	}
	<-ctx.Done()
	log.Info("stopping")
	return a.close()
}

// profiles prepares the shared-credentials file, if one is wanted.
func (c runCommand) profiles() (*delivery.SharedFile, error) {
	if c.CredentialsFile == "" {
		if len(c.Profile) > 0 {
			return nil, errors.New("--profile needs --credentials-file")
		}
		return nil, nil
	}
	names := make(map[string]string)
	for _, grant := range c.Grant {
		names[grant] = "stoker-" + grant
	}
	for grant, name := range c.Profile {
		if _, held := names[grant]; !held && len(c.Grant) > 0 {
			return nil, fmt.Errorf("--profile: grant %s is not held: name it with --grant", grant)
		}
		names[grant] = name
	}
	if len(names) == 0 {
		return nil, errors.New("--credentials-file: name the grants with --grant or --profile")
	}
	return delivery.NewSharedFile(c.CredentialsFile, names)
}

// settings are what an agent is made of.
type settings struct {
	config    client.Config
	listen    string
	tokenFile string
	socket    string
	profiles  *delivery.SharedFile // may be nil
	log       *slog.Logger
}

// agent is a running one.
type agent struct {
	settings
	source   *client.Source
	endpoint *delivery.Endpoint
	local    *delivery.Local
	file     sync.WaitGroup
	stopFile context.CancelFunc
	fileErr  error // read after file
}

// open starts an agent; what it has started it stops again on an error.
func open(ctx context.Context, s settings) (*agent, error) {
	a := &agent{settings: s}
	if err := a.start(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *agent) start(ctx context.Context) error {
	token, err := delivery.KeepToken(a.tokenFile)
	if err != nil {
		return err
	}
	// The agent ends in close alone, so that its parts end in order.
	ctx = context.WithoutCancel(ctx)
	if a.source, err = client.New(ctx, a.config); err != nil {
		return err
	}
	if a.local, err = delivery.ListenLocal(a.socket, a.source, a.log); err != nil {
		return err
	}
	if a.endpoint, err = delivery.Listen(a.listen, a.source, a.log); err != nil {
		return err
	}
	if err := a.endpoint.AdmitToken("run", token); err != nil {
		return err
	}
	if a.profiles != nil {
		ctx, a.stopFile = context.WithCancel(ctx)
		a.file.Go(func() { a.fileErr = a.profiles.Follow(ctx, a.source, a.source.Updated(), a.wrote) })
	}
	return nil
}

// wrote tells of a shared-credentials file that could not be written.
func (a *agent) wrote(err error) {
	if err != nil {
		a.log.Error(err.Error())
	}
}

// close stops what was started: first what hands credentials out.
func (a *agent) close() error {
	var problems []error
	if a.stopFile != nil {
		a.stopFile()
		a.file.Wait()
		problems = append(problems, a.fileErr)
	}
	if a.endpoint != nil {
		problems = append(problems, a.endpoint.Close())
	}
	if a.local != nil {
		problems = append(problems, a.local.Close())
	}
	if a.source != nil {
		problems = append(problems, a.source.Close())
	}
	return errors.Join(problems...)
}

// advise prints what to set for a tool.
func (a *agent) advise(w io.Writer) error {
	grants := a.config.Grants
	if len(grants) == 0 {
		grants = []string{""}
	}
	for _, grant := range grants {
		title := "# for credentials of " + grant + ":"
		if grant == "" {
			title = "# for credentials of the only grant (add /NAME to the URI where there are several):"
		}
		_, err := fmt.Fprintf(w, "%s\n%s\n%s\n", title,
			setVariable("AWS_CONTAINER_CREDENTIALS_FULL_URI", a.endpoint.URL(grant)),
			setVariable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", a.tokenFile))
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "# for tools that do not know the token file:\n%s\n",
		assign("AWS_CONTAINER_AUTHORIZATION_TOKEN", fileContent(a.tokenFile)))
	return err
}
