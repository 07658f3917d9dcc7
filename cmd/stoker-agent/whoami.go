package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/signal"
	"text/tabwriter"
	"time"

	"github.com/stokerd/stoker/client"
)

// whoamiCommand asks the broker once who the caller is.
type whoamiCommand struct {
	connection
	logging
	JSON bool `name:"json" help:"Answer in JSON."`
}

// Run implements the command.
func (c whoamiCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	log, err := c.logger(to.err, slog.LevelWarn)
	if err != nil {
		return err
	}
	config, err := c.config(ctx, to, log, true)
	if err != nil {
		return err
	}
	identity, server, err := client.WhoAmI(ctx, config)
	if err != nil {
		return err
	}
	certificate, err := client.ReadCertificate(client.Files{Certificate: config.CertFile, Key: config.KeyFile})
	if err != nil {
		return err
	}
	ahead := time.Until(server).Round(time.Second)
	if c.JSON {
		return json.NewEncoder(to.out).Encode(struct {
			client.Identity
			RenewTime  time.Time `json:"certificate_renew_time"`
			ServerTime time.Time `json:"server_time"`
		}{identity, certificate.RenewTime, server})
	}
	table := tabwriter.NewWriter(to.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "user\t%s@%s\n", identity.Login, identity.Tenant)
	fmt.Fprintf(table, "agent\t%s\n", identity.Agent)
	fmt.Fprintf(table, "identity\t%s\n", identity.SPIFFEID)
	fmt.Fprintf(table, "certificate\t%s until %s, to be renewed at %s\n", identity.CertificateSerial, stamp(identity.CertificateExpires), stamp(certificate.RenewTime))
	fmt.Fprintf(table, "broker's clock\t%s (%s from this machine's)\n", stamp(server), ahead)
	return table.Flush()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
