package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stokerd/stoker/server"
)

type certificateCommand struct {
	Kind   string        `arg:"" enum:"operator,service" help:"operator or service."`
	Name   string        `arg:"" help:"The name that the configuration gives a role or a rule."`
	Config string        `required:"" placeholder:"stoker.yaml" help:"Configuration file of the broker."`
	Out    string        `required:"" placeholder:"DIR" help:"Directory for NAME.pem, NAME.key and ca.pem; made if it is not there."`
	Life   time.Duration `default:"2160h" help:"How long the certificate is good for."`
}

func (c *certificateCommand) Run(ctx context.Context) error {
	config, err := server.Load(c.Config)
	if err != nil {
		return err
	}
	bundle, err := server.IssueCertificate(ctx, config, c.Kind, c.Name, c.Life)
	if err != nil {
		return err
	}
	if err := bundle.WriteTo(c.Out, c.Name); err != nil {
		return err
	}
	fmt.Printf("%s until %s, written to %s\n", bundle.SPIFFEID, bundle.NotAfter.Format(time.DateTime), filepath.Join(c.Out, c.Name+".pem"))
	if _, known := config.Operators[c.Name]; c.Kind == "operator" && !known {
		fmt.Fprintf(os.Stderr, "note: the configuration gives the operator %q no role yet\n", c.Name)
	}
	return nil
}
