package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/bench/internal/bare"
	"github.com/stokerd/stoker/server/bench/internal/process"
	"github.com/stokerd/stoker/server/internal/issuer"
	"github.com/stokerd/stoker/server/internal/secret"
)

// Broker is the whole of a child process that is a broker: production wiring,
// configured by a file, with one or two liberties.
type Broker struct {
	// Config is the path of the configuration file.
	Config string
	// Instant replaces STS by an issuer that answers at once, where what the
	// calls cost is not to be measured.
	Instant bool
}

// Run serves until in ends or ctx does. Beside those of every child it obeys the
// command clock D, which sets the wall clock of leases and streams wrong by D.
func (b Broker) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	config, err := server.Load(b.Config)
	if err != nil {
		return err
	}
	for name, a := range config.Accounts {
		a.MinLifetime = time.Second // hours are compressed into seconds
		if b.Instant {
			a.Issuer = instant{}
		}
		config.Accounts[name] = a
	}
	var ahead atomic.Int64
	config.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	broker, err := server.New(ctx, config, server.NewLogger(config.Log, os.Stderr))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- broker.Run(serving) }()
	ready := process.Ready{Address: broker.Addr().String()}
	if at := broker.OperationsAddr(); at != nil {
		ready.Operations = at.String()
	}
	obeyed := make(chan error, 1)
	go func() {
		obeyed <- process.Obey(serving, in, out, ready, map[string]process.Command{
			"clock": func(_ context.Context, by string) (string, error) {
				d, err := time.ParseDuration(by)
				ahead.Store(int64(d))
				return "set", err
			},
		})
	}()
	select {
	case err = <-obeyed:
		stop()
		return errors.Join(err, <-served)
	case err = <-served:
		return err // the input is never read again: the process ends
	}
}

// instant issues credentials of the size of AWS's without asking anybody.
type instant struct{}

// tokenSize is what makes the whole message 1.2 KB.
const tokenSize = 900

var token = func() secret.String {
	raw := make([]byte, tokenSize*3/4)
	_, _ = rand.Read(raw) // never fails
	return secret.New(base64.StdEncoding.EncodeToString(raw))
}()

// Issue implements issuer.Issuer.
func (instant) Issue(_ context.Context, r issuer.Request) (issuer.Credential, error) {
	now := time.Now()
	return issuer.Credential{
		AccessKeyID: "ASIAINSTANT" + r.SessionName[len(r.SessionName)-9:], SecretAccessKey: secret.New("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
		SessionToken: token, IssuedAt: now, Expires: now.Add(r.Duration), PackedPolicySize: 20,
	}, nil
}

// Bare is the whole of a child process that is bare grpc-go. Dir holds its
// certificate and the messages that it sends, as writeBare writes them.
type Bare struct{ Dir string }

// The names of a bare server's files.
const (
	bareCertificate = "bare.pem"
	bareKey         = "bare.key"
	bareClients     = "clients.pem"
	bareWelcome     = "welcome.bin"
	bareCredential  = "credential.bin"
)

// Run serves until in ends or ctx does.
func (b Bare) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	path := func(name string) string { return filepath.Join(b.Dir, name) }
	certificate, err := tls.LoadX509KeyPair(path(bareCertificate), path(bareKey))
	if err != nil {
		return err
	}
	files := make([][]byte, 3)
	for i, name := range []string{bareClients, bareWelcome, bareCredential} {
		if files[i], err = os.ReadFile(path(name)); err != nil {
			return err
		}
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(files[0])
	return bare.Run(ctx, bare.Config{Certificate: certificate, Clients: clients, Welcome: files[1], Credential: files[2]}, in, out)
}
