package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stokerd/stoker/internal/atomicfile"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type agentCertificate struct {
	Agent   member `arg:"" name:"tenant/agent"`
	Out     string `required:"" placeholder:"DIR" help:"Where agent.pem, agent.key and ca.pem go; made if it is not there."`
	Replace bool   `help:"Overwrite an agent.key that is there."`
}

// The names of the files.
const (
	certificateFile = "agent.pem"
	keyFile         = "agent.key"
	authorityFile   = "ca.pem"
)

func (c *agentCertificate) Run(a *api) error {
	if err := c.prepare(); err != nil {
		return err
	}
	key, keyPEM, request, err := newRequest()
	if err != nil {
		return err
	}
	r, err := a.agents.IssueAgentCertificate(a.ctx, &stokerv1.IssueAgentCertificateRequest{
		Tenant: c.Agent.tenant, Name: c.Agent.name, CertificateRequest: request,
	})
	if err != nil {
		return err
	}
	bundle := r.GetCertificate()
	if err := belongs(bundle.GetCertificatePem(), key); err != nil {
		return err
	}
	// The key first: a certificate without its key is of no use, and of a pair
	// that does not fit an agent says so.
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{keyFile, keyPEM, 0o600}, {certificateFile, bundle.GetCertificatePem(), 0o644}, {authorityFile, bundle.GetAuthorityPem(), 0o644},
	} {
		if err := atomicfile.Write(filepath.Join(c.Out, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return a.done(bundle, "%s until %s\nwrote %s, %s and %s to %s", bundle.GetSpiffeId(), at(bundle.GetNotAfter()),
		certificateFile, keyFile, authorityFile, c.Out)
}

// prepare makes sure before the broker is asked that the files can be written,
// and that no other agent's key is lost.
func (c *agentCertificate) prepare() error {
	if err := os.MkdirAll(c.Out, 0o700); err != nil {
		return usagef("%v", err)
	}
	path := filepath.Join(c.Out, keyFile)
	switch _, err := os.Lstat(path); {
	case err == nil && !c.Replace:
		return usagef("%s is there already; pass --replace to overwrite it, or choose another --out", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return usagef("%v", err)
	}
	return nil
}

// newRequest makes a key, which never leaves this machine, and a certificate
// request that is signed by it. The broker decides what the names are.
func newRequest() (key *ecdsa.PrivateKey, keyPEM, request []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	if request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), request, nil
}

// belongs makes sure that the certificate is the key's.
func belongs(certificatePEM []byte, key *ecdsa.PrivateKey) error {
	block, _ := pem.Decode(certificatePEM)
	if block == nil {
		return errors.New("the broker answered no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the broker answered a certificate that cannot be read: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("the broker answered a certificate of another key")
	}
	return nil
}
