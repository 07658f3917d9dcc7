package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"time"

	"github.com/stokerd/stoker/client"
)

// watchCommand prints what happens on a stream, a line for each event.
type watchCommand struct {
	connection
	logging
	Grant       []string `short:"g" env:"STOKER_GRANT" sep:"," placeholder:"NAME" help:"Grant to watch. Without it, all of the user's."`
	JSON        bool     `name:"json" help:"Print each event as a line of JSON."`
	ShowSecrets bool     `help:"Print secret keys and session tokens too."`
}

// Run implements the command. It ends when it is told to; or, since somebody is
// looking at it, when the broker refuses for good before it ever let the agent
// in.
func (c watchCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	log, err := c.logger(to.err, slog.LevelError)
	if err != nil {
		return err
	}
	config, err := c.config(ctx, to, log, true, c.Grant...)
	if err != nil {
		return err
	}
	config.Grants = c.Grant
	source, err := client.New(ctx, config)
	if err != nil {
		return err
	}
	printer := &eventPrinter{watchCommand: c, to: to.out, end: make(chan error, 1)}
	source.Watch(printer.print)
	select {
	case err = <-printer.end:
	case <-ctx.Done():
	}
	// Close waits for the goroutine that prints.
	if closing := source.Close(); closing != nil {
		return closing
	}
	return err
}

// eventPrinter prints events. It belongs to the source's goroutine.
type eventPrinter struct {
	watchCommand
	to       io.Writer
	admitted bool
	end      chan error // takes the first reason to end
}

func (p *eventPrinter) print(e client.Event) {
	var failed error
	switch e.Kind {
	case client.EventConnected:
		p.admitted = true
	case client.EventDisconnected:
		var cause *client.Error
		if errors.As(e.Err, &cause) && !cause.Transient && !p.admitted {
			failed = &codedError{code: 1, err: cause}
		}
	}
	if failed == nil {
		failed = p.line(e)
	}
	if failed != nil {
		select {
		case p.end <- failed:
		default:
		}
	}
}

func (p *eventPrinter) line(e client.Event) error {
	if p.JSON {
		return json.NewEncoder(p.to).Encode(p.record(e))
	}
	line := e.Time.UTC().Format(time.RFC3339) + "  " + e.String()
	if p.ShowSecrets && e.Kind == client.EventCredential {
		line += fmt.Sprintf(" secret_access_key=%s session_token=%s", e.Credential.SecretAccessKey, e.Credential.SessionToken)
	}
	_, err := fmt.Fprintln(p.to, line)
	return err
}

// eventRecord is an event in JSON.
type eventRecord struct {
	Time         time.Time           `json:"time"`
	Event        string              `json:"event"`
	Broker       string              `json:"broker,omitempty"`
	Identity     *client.Identity    `json:"identity,omitempty"`
	StreamID     string              `json:"stream_id,omitempty"`
	Grant        string              `json:"grant,omitempty"`
	Credential   any                 `json:"credential,omitempty"`
	CredentialID string              `json:"credential_id,omitempty"`
	Certificate  *client.Certificate `json:"certificate,omitempty"`
	Reason       string              `json:"reason,omitempty"`
	Message      string              `json:"message,omitempty"`
	Transient    *bool               `json:"transient,omitempty"`
	RetryTime    time.Time           `json:"retry_time,omitzero"`
	GoodUntil    time.Time           `json:"good_until,omitzero"`
}

// openCredential is a credential in JSON with its secrets.
type openCredential struct {
	ID              string        `json:"id"`
	Grant           string        `json:"grant"`
	AccessKeyID     string        `json:"access_key_id"`
	SecretAccessKey string        `json:"secret_access_key"`
	SessionToken    string        `json:"session_token"`
	Issued          time.Time     `json:"issued"`
	Expires         time.Time     `json:"expires"`
	Target          client.Target `json:"target"`
	Access          string        `json:"access"`
}

func (p *eventPrinter) record(e client.Event) eventRecord {
	r := eventRecord{
		Time: e.Time.UTC(), Event: string(e.Kind), Broker: e.Broker, StreamID: e.StreamID, Grant: e.Grant,
		CredentialID: e.CredentialID, RetryTime: e.RetryTime.UTC(), GoodUntil: e.GoodUntil.UTC(),
	}
	switch e.Kind {
	case client.EventConnected:
		r.Identity = &e.Identity
	case client.EventCertificate:
		r.Certificate = &e.Certificate
	case client.EventCredential:
		r.CredentialID, r.Credential = e.Credential.ID, e.Credential
		if p.ShowSecrets {
			r.Credential = openCredential(e.Credential)
		}
	}
	if e.Err != nil {
		r.Message = e.Err.Error()
		var cause *client.Error
		if errors.As(e.Err, &cause) {
			r.Reason, r.Message, r.Transient = string(cause.Reason), cause.Message, &cause.Transient
		}
	}
	return r
}
