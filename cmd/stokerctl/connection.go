package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/stokerd/stoker/internal/version"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// connection says where the broker is and who calls.
type connection struct {
	Broker     string        `env:"STOKER_BROKER" placeholder:"HOST:PORT" help:"Address of the broker."`
	CA         string        `name:"ca" env:"STOKER_CA" placeholder:"FILE" help:"Certificates of the authorities that may sign the broker's, in PEM."`
	Cert       string        `env:"STOKER_CERT" placeholder:"FILE" help:"The operator's certificate, in PEM."`
	Key        string        `env:"STOKER_KEY" placeholder:"FILE" help:"The certificate's private key, in PEM."`
	ServerName string        `env:"STOKER_SERVER_NAME" placeholder:"NAME" help:"Name that the broker's certificate must have. Default: the host of --broker."`
	Timeout    time.Duration `default:"30s" help:"How long one call may take."`
}

// api is what a command works with: the broker's services, and the terminal.
type api struct {
	ctx context.Context
	*terminal
	output
	yes bool

	tenants   stokerv1.TenantServiceClient
	users     stokerv1.UserServiceClient
	agents    stokerv1.AgentServiceClient
	locations stokerv1.LocationServiceClient
	grants    stokerv1.GrantServiceClient
	fleet     stokerv1.FleetServiceClient
	audit     stokerv1.AuditServiceClient
	accounts  stokerv1.AccountServiceClient

	conn *grpc.ClientConn
	// certificate is the caller's own.
	certificate *x509.Certificate
}

// open makes the services; the connection itself is made by the first call.
func (c *cli) open(ctx context.Context, t *terminal) (*api, error) {
	conn, own, err := c.Connection.dial()
	if err != nil {
		return nil, err
	}
	return &api{
		certificate: own,
		ctx:         ctx, terminal: t, output: output{to: t.out, json: c.Output == "json"}, yes: c.Yes, conn: conn,
		tenants: stokerv1.NewTenantServiceClient(conn), users: stokerv1.NewUserServiceClient(conn),
		agents: stokerv1.NewAgentServiceClient(conn), locations: stokerv1.NewLocationServiceClient(conn),
		grants: stokerv1.NewGrantServiceClient(conn), fleet: stokerv1.NewFleetServiceClient(conn),
		audit: stokerv1.NewAuditServiceClient(conn), accounts: stokerv1.NewAccountServiceClient(conn),
	}, nil
}

// close gives the connection back. Nothing is lost if that fails.
func (a *api) close() { _ = a.conn.Close() }

// dial gives the connection, and the certificate that it presents.
func (c connection) dial() (*grpc.ClientConn, *x509.Certificate, error) {
	var missing []string
	for _, need := range []struct{ flag, env, value string }{
		{"--broker", "STOKER_BROKER", c.Broker}, {"--ca", "STOKER_CA", c.CA}, {"--cert", "STOKER_CERT", c.Cert}, {"--key", "STOKER_KEY", c.Key},
	} {
		if need.value == "" {
			missing = append(missing, need.flag+" (or "+need.env+")")
		}
	}
	if len(missing) > 0 {
		return nil, nil, usagef("missing: %s", strings.Join(missing, ", "))
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, nil, usagef("certificate %s with key %s: %v", c.Cert, c.Key, err)
	}
	authorities, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, nil, usagef("authorities: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return nil, nil, usagef("authorities: there is no certificate in PEM in %s", c.CA)
	}
	conn, err := grpc.NewClient(c.Broker,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: c.ServerName,
		})),
		grpc.WithUserAgent("stokerctl/"+version.String()),
		grpc.WithUnaryInterceptor(c.limit),
		// The trail's pages hold up to a thousand records.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, nil, fmt.Errorf("address %s: %w", c.Broker, err)
	}
	return conn, pair.Leaf, nil
}

// limit bounds each call by itself: a command that makes many may take longer.
func (c connection) limit(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return call(ctx, method, request, answer, conn, options...)
}
