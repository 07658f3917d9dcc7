package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type accountCommands struct {
	RotateKey rotateKeyCommand `cmd:"" help:"Replace the long-term key of an account's IAM user, while credentials go on being issued."`
}

type rotateKeyCommand struct {
	Account       string   `arg:"" help:"The account's name in the broker's configuration."`
	Abort         bool     `help:"Undo the rotation that is under way: back to the old key."`
	DryRun        bool     `help:"Say what would be done, and do nothing."`
	IgnoreReplica []string `placeholder:"REPLICA" help:"Do not wait for this replica, which status lists and which does not run any more. May be repeated."`
}

// Help is what account rotate-key --help adds.
func (*rotateKeyCommand) Help() string {
	return "The broker creates a key, verifies it, has every replica use it, disables the old one and deletes it. " +
		"Each step is stored: cut off at any, run it again, at any replica. docs/aws.md has the policy that the IAM user needs."
}

func (c *rotateKeyCommand) Run(a *api) error {
	what := "replace the key of the account " + c.Account
	if c.Abort {
		what = "undo the rotation of the key of the account " + c.Account
	}
	if !c.DryRun {
		if err := a.confirm("%s", what); err != nil {
			return err
		}
	}
	steps, err := a.accounts.RotateAccountKey(a.ctx, &stokerv1.RotateAccountKeyRequest{
		Account: c.Account, Abort: c.Abort, DryRun: c.DryRun, IgnoredReplicas: c.IgnoreReplica,
	})
	for err == nil {
		var m *stokerv1.RotateAccountKeyResponse
		if m, err = steps.Recv(); err != nil {
			break
		}
		if a.json {
			err = a.line(m)
			continue
		}
		step := strings.ToLower(strings.TrimPrefix(m.GetStep().String(), "KEY_ROTATION_STEP_"))
		_, err = fmt.Fprintf(a.out, "%-9s %s  %s\n", step, clean(m.GetAccessKeyId()), clean(m.GetMessage()))
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
