package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
	Service     = "restorer"
)

// marker is a file that tells a directory of development mode from one that
// holds something dear.
const marker = "stoker-dev-mode"

// Options says how development mode runs.
type Options struct {
	// Dir gets keys, certificates and the database. It must be empty, missing,
	// or left over from development mode, and is removed at the end.
	Dir string
	// Listen is the broker's address; it must be loopback. New agents enroll on
	// the port after it.
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

	enrollment, err := next(o.Listen)
	if err != nil {
		return err
	}
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
		Services:          map[string]server.ServiceConfig{Service: {Tenants: []string{Tenant}, Access: []string{"restore"}}},
		Enrollment:        &server.EnrollmentConfig{Listen: enrollment},
		Operations:        "off",
		Drain:             2 * time.Second,
		Log:               server.LogConfig{Format: "text"},
	}
	for name, kind := range map[string]string{Operator: "operator", Service: "service"} {
		made, err := server.IssueCertificate(ctx, config, kind, name, 24*time.Hour)
		if err != nil {
			return err
		}
		if err := made.WriteTo(o.Dir, name); err != nil {
			return err
		}
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
		return welcome(o, address, broker.EnrollmentAddr().String(), sts.URL(), password)
	})
	return running.Wait()
}

// next is the address with the port after that of the given one, or with any
// free port where that is 0. What is not loopback is refused.
func next(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("--listen: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("--listen: %q is not a loopback address, and development mode is insecure; use 127.0.0.1", host)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 65535 {
		return "", fmt.Errorf("--listen: the port %q leaves none after it; choose another", port)
	}
	if number > 0 {
		number++
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
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
