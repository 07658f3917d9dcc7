package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// Broker is where to ask, and as which service.
type Broker struct{ Address, CA, Cert, Key string }

// Dial connects with the service's certificate.
func (b Broker) Dial() (*grpc.ClientConn, error) {
	pair, err := tls.LoadX509KeyPair(b.Cert, b.Key)
	if err != nil {
		return nil, fmt.Errorf("the service's certificate: %w", err)
	}
	authority, err := os.ReadFile(b.CA)
	if err != nil {
		return nil, fmt.Errorf("the broker's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("the broker's authority: no certificate in %s", b.CA)
	}
	return grpc.NewClient(b.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots,
	})))
}

// Delegation is an aws.CredentialsProvider for one tenant's grant. Within
// aws.NewCredentialsCache a restore of any length stays supplied: the cache
// asks again in good time, and the broker records each time why.
type Delegation struct {
	Service               stokerv1.DelegationServiceClient
	Tenant, Grant, Reason string
}

var _ aws.CredentialsProvider = Delegation{}

// Issue asks the broker for a credential, which also says where it leads.
func (d Delegation) Issue(ctx context.Context) (*stokerv1.Credential, error) {
	answer, err := d.Service.IssueCredentials(ctx, &stokerv1.IssueCredentialsRequest{Tenant: d.Tenant, Grant: d.Grant, Reason: d.Reason})
	if err != nil {
		return nil, fmt.Errorf("the broker gives no credentials for %s/%s: %w", d.Tenant, d.Grant, err)
	}
	return answer.GetCredential(), nil
}

// Retrieve implements aws.CredentialsProvider.
func (d Delegation) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := d.Issue(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	return aws.Credentials{
		AccessKeyID: c.GetAccessKeyId(), SecretAccessKey: c.GetSecretAccessKey(), SessionToken: c.GetSessionToken(),
		Source: "Stoker", CanExpire: true, Expires: c.GetExpireTime().AsTime(),
	}, nil
}
