package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// NewPair makes a key and has its certificate signed by sign, such as one of an
// Authority's methods.
func NewPair(sign func(crypto.PublicKey) (*x509.Certificate, error)) (tls.Certificate, error) {
	key, err := NewKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := sign(key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair(key, cert), nil
}

// NewRequest makes a key and a PKCS #10 certificate request for it in DER, which
// names nobody: see ParseRequest.
func NewRequest() (key crypto.Signer, request []byte, err error) {
	if key, err = NewKey(); err != nil {
		return nil, nil, err
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, request, err
}

// Pair joins a key and its certificate in PEM, whose chain may follow it.
func Pair(key crypto.Signer, certificates []byte) (tls.Certificate, error) {
	chain, err := ParseCertificates(certificates)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !publicEqual(chain[0].PublicKey, key.Public()) {
		return tls.Certificate{}, errors.New("the certificate is another key's")
	}
	return pair(key, chain...), nil
}

// pair is a chain, which begins with the key's own certificate, as TLS takes it.
func pair(key crypto.Signer, chain ...*x509.Certificate) tls.Certificate {
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}
