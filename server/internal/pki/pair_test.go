package pki_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
)

// What is requested is what is signed, and the pair of both is good.
func TestRequestedPair(t *testing.T) {
	a := newAuthority(t)
	key, request, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pki.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.SignAgent(public, "acme", "nas-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.Pair(key, append(pki.EncodeCertificates(cert), a.CertificatePEM()...))
	if err != nil {
		t.Fatal(err)
	}
	if pair.PrivateKey != key || !pair.Leaf.Equal(cert) || len(pair.Certificate) != 2 {
		t.Errorf("the pair is %+v", pair)
	}
}

func TestPairsThatAreNone(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	if _, err := pki.Pair(key, a.CertificatePEM()); err == nil || !strings.Contains(err.Error(), "another key's") {
		t.Errorf("the authority's certificate: %v", err)
	}
	if _, err := pki.Pair(key, []byte("none")); err == nil {
		t.Error("no certificate was taken")
	}
}

func TestNewPair(t *testing.T) {
	a := newAuthority(t)
	pair, err := pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) { return a.SignOperator(key, "root", time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Pair(pair.PrivateKey.(crypto.Signer), pki.EncodeCertificates(pair.Leaf)); err != nil {
		t.Error(err)
	}
	refused := errors.New("refused")
	if _, err := pki.NewPair(func(crypto.PublicKey) (*x509.Certificate, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}
