// Command restore-worker shows how an internal service of the provider reads a
// tenant's backups: it presents a service certificate, names the tenant, the
// grant and a reason, and is kept supplied with credentials that reach that
// tenant's prefix and nothing else, however long the restore takes. The reason
// is in the audit trail and in the names of the STS sessions.
//
// It copies the objects under a tenant's prefix into a directory:
//
//	restore-worker --broker stoker.example.com:8443 --ca ca.pem \
//	  --cert restore-worker.pem --key restore-worker.key \
//	  --tenant acme --grant nightly-read --reason "ticket 4711" --out restored
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/stokerd/stoker/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "restore-worker: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var job Job
	var broker string
	config := client.Config{Delegation: &client.Delegation{}, Client: "restore-worker", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flags := flag.NewFlagSet("restore-worker", flag.ContinueOnError)
	flags.StringVar(&broker, "broker", "", "host:port of the broker")
	flags.StringVar(&config.CAFile, "ca", "", "PEM file with the authority of the broker's certificate")
	flags.StringVar(&config.CertFile, "cert", "", "PEM file with the service's certificate")
	flags.StringVar(&config.KeyFile, "key", "", "PEM file with the certificate's key")
	flags.StringVar(&config.Delegation.Tenant, "tenant", "", "whose backups")
	flags.StringVar(&config.Delegation.Grant, "grant", "", "the grant to use; the service's rule must allow its access")
	flags.StringVar(&config.Delegation.Reason, "reason", "", "what for, such as a ticket; the audit trail and CloudTrail show it")
	flags.StringVar(&job.Out, "out", "", "directory to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config.Brokers = []string{broker}
	source, err := client.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	n, err := job.Restore(ctx, source)
	if err != nil {
		return err
	}
	fmt.Printf("%d objects written to %s\n", n, job.Out)
	return nil
}
