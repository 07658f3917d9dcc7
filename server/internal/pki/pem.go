package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/stokerd/stoker/server/internal/secret"
)

// The PEM block types that Stoker reads and writes.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemCRL         = "X509 CRL"
)

// EncodeCertificates writes certificates in PEM, in the given order.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}))
	}
	return out.Bytes()
}

// ParseCertificates reads one or more certificates in PEM. Anything else in
// the text is an error, so that a bundle which is cut off, or holds a key, is
// noticed. Text between the blocks (a certificate's description) is allowed.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := text
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("a %s stands where certificates belong", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case blocks(text) != len(certs):
		return nil, errors.New("a PEM block is cut off or garbled")
	case len(certs) == 0:
		return nil, errors.New("there is no certificate in PEM")
	}
	return certs, nil
}

// blocks counts the PEM blocks that begin in a text: pem.Decode passes over
// those that it cannot read.
func blocks(text []byte) int { return bytes.Count(text, []byte("-----BEGIN ")) }

// EncodeKey writes a private key as PKCS #8 in PEM.
func EncodeKey(key crypto.Signer) (secret.String, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return secret.String{}, fmt.Errorf("encode a private key: %w", err)
	}
	return secret.New(string(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))), nil
}

// ParseKey reads a private key in PEM: PKCS #8, or the older forms for EC and
// RSA keys that OpenSSL writes. No error holds a part of the key.
func ParseKey(text secret.String) (crypto.Signer, error) {
	rest := []byte(text.Reveal())
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, errors.New("there is no private key in PEM")
		}
		var key any
		var err error
		switch block.Type {
		case pemKey:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PARAMETERS":
			continue // OpenSSL writes them before the key
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the private key is encrypted: decrypt it, and let its file mode protect it")
		default:
			return nil, fmt.Errorf("a %s stands where a private key belongs", block.Type)
		}
		if err != nil {
			return nil, errors.New("the private key cannot be read")
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("the private key cannot sign")
		}
		if err := checkKey(signer.Public()); err != nil {
			return nil, err
		}
		return signer, nil
	}
}

// publicEqual compares two public keys.
func publicEqual(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
