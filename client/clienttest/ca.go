package clienttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// authority signs the certificates of one fake broker and its agents.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// life is how long certificates are good, from an hour ago.
const life = 10 * 365 * 24 * time.Hour

func newAuthority(tb testing.TB) *authority {
	key := newKey(tb)
	template := newTemplate(tb, "clienttest authority", life)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a := &authority{key: key}
	a.certificate = sign(tb, template, template, &key.PublicKey, key)
	return a
}

// server makes the broker's certificate, for loopback and the given name.
func (a *authority) server(tb testing.TB, name string) tls.Certificate {
	template := newTemplate(tb, name, life)
	template.DNSNames = []string{name, "localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(tb, template)
}

// agent makes an agent's certificate with the URI as its identity.
func (a *authority) agent(tb testing.TB, uri string, life time.Duration) tls.Certificate {
	return a.issue(tb, agentTemplate(tb, uri, life))
}

func agentTemplate(tb testing.TB, uri string, life time.Duration) *x509.Certificate {
	id, err := url.Parse(uri)
	if err != nil {
		tb.Fatalf("clienttest: identity: %v", err)
	}
	template := newTemplate(tb, "agent", life)
	template.URIs = []*url.URL{id}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return template
}

func (a *authority) issue(tb testing.TB, template *x509.Certificate) tls.Certificate {
	key := newKey(tb)
	leaf := a.leaf(tb, template, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) leaf(tb testing.TB, template *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return sign(tb, template, a.certificate, key, a.key)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("clienttest: key: %v", err)
	}
	return key
}

func newTemplate(tb testing.TB, name string, life time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatalf("clienttest: serial number: %v", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(life),
	}
}

func sign(tb testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		tb.Fatalf("clienttest: certificate: %v", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("clienttest: certificate: %v", err)
	}
	return certificate
}

// encode gives a certificate and its key in PEM.
func encode(tb testing.TB, pair tls.Certificate) (certificate, key []byte) {
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		tb.Fatalf("clienttest: key: %v", err)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
