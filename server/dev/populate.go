package dev

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/pki"
)

func newKey() ([]byte, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	return []byte(base64.StdEncoding.EncodeToString(raw)), nil
}

// populate makes the demo tenant the way an operator would, and gives the
// user's password.
func populate(ctx context.Context, o Options, address string) (password string, err error) {
	conn, err := dial(o.Dir, address)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := stokerv1.NewTenantServiceClient(conn).CreateTenant(ctx, &stokerv1.CreateTenantRequest{
		Tenant: &stokerv1.Tenant{Name: Tenant, DisplayName: "Demo tenant"},
	}, grpc.WaitForReady(true)); err != nil {
		return "", err
	}
	user, err := stokerv1.NewUserServiceClient(conn).CreateUser(ctx, &stokerv1.CreateUserRequest{
		User: &stokerv1.User{Tenant: Tenant, Login: Login},
	})
	if err != nil {
		return "", err
	}
	if err := enroll(ctx, conn, o.Dir); err != nil {
		return "", err
	}
	if _, err := stokerv1.NewLocationServiceClient(conn).CreateLocation(ctx, &stokerv1.CreateLocationRequest{
		Location: &stokerv1.Location{Name: Location, Account: "dev", Bucket: Bucket, Region: "us-east-1"},
	}); err != nil {
		return "", err
	}
	_, err = stokerv1.NewGrantServiceClient(conn).CreateGrant(ctx, &stokerv1.CreateGrantRequest{Grant: &stokerv1.Grant{
		Tenant: Tenant, Name: Grant, Location: Location, Prefix: Prefix,
		Access: stokerv1.Access_ACCESS_BACKUP, Lifetime: durationpb.New(o.Lifetime),
	}})
	return user.GetGeneratedPassword(), err
}

// dial connects as the operator.
func dial(dir, address string) (*grpc.ClientConn, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, Operator+".pem"), filepath.Join(dir, Operator+".key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(authority)
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: roots, MinVersion: tls.VersionTLS13,
	})))
}

// enroll makes the agent with a key of its own and writes agent.pem and
// agent.key.
func enroll(ctx context.Context, conn *grpc.ClientConn, dir string) error {
	agents := stokerv1.NewAgentServiceClient(conn)
	if _, err := agents.CreateAgent(ctx, &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: Tenant, Name: Agent}}); err != nil {
		return err
	}
	key, request, err := pki.NewRequest()
	if err != nil {
		return err
	}
	issued, err := agents.IssueAgentCertificate(ctx, &stokerv1.IssueAgentCertificateRequest{Tenant: Tenant, Name: Agent, CertificateRequest: request})
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := pki.WriteFile(filepath.Join(dir, "agent.key"), []byte(keyPEM.Reveal()), 0o600); err != nil {
		return fmt.Errorf("writing the agent's key: %w", err)
	}
	return pki.WriteFile(filepath.Join(dir, "agent.pem"), issued.GetCertificate().GetCertificatePem(), 0o644)
}
