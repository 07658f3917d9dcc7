package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/issuer/devsts"
)

// The names of everything in development mode.
const (
	TrustDomain = "dev.stoker.example"
	Tenant      = "demo"
	Login       = "backup"
	Agent       = "laptop"
	Location    = "demo-bucket"
	Bucket      = "backups-of-demo"
	Grant       = "nightly"
	Prefix      = "demo/"
	Operator    = "admin"
)

// marker is a file that tells a directory of development mode from one that
// holds something dear.
const marker = "stoker-dev-mode"

// Options says how development mode runs.
type Options struct {
	// Dir gets keys, certificates and the database. It must be empty, missing,
	// or left over from development mode, and is removed at the end.
	Dir string
	// Listen is the broker's address; it must be loopback.
	Listen string
	// Lifetime is how long each credential lives: from 3s, where the local STS
	// allows less than AWS's 15 minutes.
	Lifetime time.Duration
	// Method is federation_token or assume_role.
	Method string
	// Verbose also prints the broker's log.
	Verbose bool
	// Out gets the banner, what goes to the STS, and the commands to try.
	Out io.Writer
}

// Run runs until ctx ends, then removes the directory.
func Run(ctx context.Context, o Options) (err error) {
	if o.Lifetime < 3*time.Second || o.Lifetime > 12*time.Hour {
		return fmt.Errorf("a lifetime of %v is out of bounds: from 3s to 12h", o.Lifetime)
	}
	if err := prepare(o.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()

	sts, account, err := startSTS(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sts.Close()) }()

	config := server.Config{
		TrustDomain:       TrustDomain,
		Listen:            o.Listen,
		Names:             []string{"localhost", "127.0.0.1"},
		Storage:           server.StorageConfig{SQLite: filepath.Join(o.Dir, "stoker.db")},
		EncryptionKeyFile: filepath.Join(o.Dir, "encryption.key"),
		Accounts:          map[string]server.AccountConfig{"dev": account},
		Operators:         map[string]string{Operator: "admin"},
		Operations:        "off",
		Drain:             2 * time.Second,
		Log:               server.LogConfig{Format: "text"},
	}
	admin, err := server.IssueCertificate(ctx, config, "operator", Operator, 24*time.Hour)
	if err != nil {
		return err
	}
	if err := admin.WriteTo(o.Dir, Operator); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if o.Verbose {
		log = server.NewLogger(config.Log, o.Out)
	}
	broker, err := server.New(ctx, config, log)
	if err != nil {
		return err
	}
	running, stop := errgroup.WithContext(ctx)
	running.Go(func() error { return broker.Run(stop) })
	running.Go(func() error {
		address := broker.Addr().String()
		password, err := populate(stop, o, address)
		if err != nil {
			return fmt.Errorf("making the demo tenant: %w", err)
		}
		return welcome(o, address, sts.URL(), password)
	})
	return running.Wait()
}

// prepare makes the directory, empty but for the marker and a fresh key.
func prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s holds files that development mode did not make; name another directory with --dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, marker), []byte("made by stokerd dev; safe to remove\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "encryption.key"), key, 0o600),
	)
}

// startSTS starts the local STS and describes it as an account.
func startSTS(o Options) (*devsts.Server, server.AccountConfig, error) {
	user := devsts.NewUser("stoker")
	shortest := min(o.Lifetime, 15*time.Minute)
	sts, err := devsts.Start(devsts.Config{
		Users: []devsts.User{user}, Roles: []devsts.Role{{Name: "stoker", MaxLifetime: 12 * time.Hour}}, MinLifetime: shortest,
		OnIssue: func(i devsts.Issued) {
			say(o.Out, "STS  %s  name=%s  tags=%v  policy=%s", i.Action, i.Name, i.Tags, i.Policy)
		},
	})
	if err != nil {
		return nil, server.AccountConfig{}, err
	}
	account := server.AccountConfig{
		Method: o.Method, Region: "us-east-1", Endpoint: sts.URL(), Keys: aws.CredentialsProvider(user),
		MinLifetime: shortest, MaxLifetime: max(o.Lifetime, shortest), Revocation: "apply",
	}
	if o.Method == "assume_role" {
		account.RoleARN = "arn:aws:iam::" + devsts.DefaultAccountID + ":role/stoker"
	}
	return sts, account, nil
}
