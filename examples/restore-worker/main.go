// Command restore-worker shows how an internal service of the provider reads a
// tenant's backups: it presents a service certificate, names the tenant, the
// grant and a reason, and gets credentials that reach that tenant's prefix and
// nothing else. The reason is in the audit trail.
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
	"os"
	"os/signal"
	"syscall"
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
	var at Broker
	flags := flag.NewFlagSet("restore-worker", flag.ContinueOnError)
	flags.StringVar(&at.Address, "broker", "", "host:port of the broker")
	flags.StringVar(&at.CA, "ca", "", "PEM file with the authority of the broker's certificate")
	flags.StringVar(&at.Cert, "cert", "", "PEM file with the service's certificate")
	flags.StringVar(&at.Key, "key", "", "PEM file with the certificate's key")
	flags.StringVar(&job.Tenant, "tenant", "", "whose backups")
	flags.StringVar(&job.Grant, "grant", "", "the grant to use; the service's rule must allow its access")
	flags.StringVar(&job.Reason, "reason", "", "what for, such as a ticket; the audit trail shows it")
	flags.StringVar(&job.Out, "out", "", "directory to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := at.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	n, err := job.Restore(ctx, conn)
	if err != nil {
		return err
	}
	fmt.Printf("%d objects written to %s\n", n, job.Out)
	return nil
}
