package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// When a certificate is renewed: at two thirds of its life, and up to a twentieth
// of it earlier or later, so that agents which were enrolled together do not
// renew together.
const (
	renewalPart   = 2.0 / 3
	renewalSpread = 0.05
)

// Certificate describes an agent's certificate.
type Certificate struct {
	// SPIFFEID is the URI in it, which says which agent it is.
	SPIFFEID string `json:"spiffe_id"`
	// Serial is lower-case hexadecimal.
	Serial string `json:"serial"`
	// NotBefore and Expires bound its life.
	NotBefore time.Time `json:"not_before"`
	Expires   time.Time `json:"expires"`
	// RenewTime is when it is renewed. Zero: it is not, by this source.
	RenewTime time.Time `json:"renew_time,omitzero"`
}

// String gives it in words.
func (c Certificate) String() string {
	text := fmt.Sprintf("%s of %s until %s", c.Serial, c.SPIFFEID, stamp(c.Expires))
	if !c.RenewTime.IsZero() {
		text += ", to be renewed at " + stamp(c.RenewTime)
	}
	return text
}

// ReadCertificate reads what Files say of an agent's certificate, if the key fits.
// RenewTime is when a source that renews it would.
func ReadCertificate(files Files) (Certificate, error) {
	p, err := loadPair(files.Certificate, files.Key)
	if err != nil {
		return Certificate{}, err
	}
	return describe(p.certificate.Leaf), nil
}

// describe describes a certificate that is renewed.
func describe(leaf *x509.Certificate) Certificate {
	c := Certificate{
		Serial: leaf.SerialNumber.Text(16), NotBefore: leaf.NotBefore, Expires: leaf.NotAfter, RenewTime: renewTime(leaf),
	}
	if len(leaf.URIs) > 0 {
		c.SPIFFEID = printable(leaf.URIs[0].String())
	}
	return c
}

// renewTime is drawn from the certificate itself: its serial number and signature
// are random, and an agent that is started again draws the same.
func renewTime(leaf *x509.Certificate) time.Time {
	sum := sha256.Sum256(leaf.Raw)
	drawn := float64(binary.BigEndian.Uint64(sum[:])) / math.MaxUint64 // 0 to 1
	part := renewalPart + renewalSpread*(2*drawn-1)
	return leaf.NotBefore.Add(time.Duration(part * float64(leaf.NotAfter.Sub(leaf.NotBefore))))
}

// request is a new key, which never leaves this machine, with a certificate
// request that it has signed. The broker decides what the names are.
type request struct {
	private *ecdsa.PrivateKey
	key     []byte // in PEM
	der     []byte
}

func newRequest() (request, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return request{}, fmt.Errorf("make a key: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return request{}, fmt.Errorf("encode the key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return request{}, fmt.Errorf("make a certificate request: %w", err)
	}
	return request{private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), der}, nil
}

// signed is a certificate that may be used, in PEM with what came along.
type signed struct {
	leaf                   *x509.Certificate
	certificate, authority []byte
}

// accept makes sure that what a broker answered can be used before anything is
// replaced by it: the certificate is for our key, for an agent, and signed by an
// authority that trusted allows. What is written later is what was parsed here.
func (r request) accept(m *stokerv1.CertificateBundle, trusted func(*x509.Certificate) bool) (signed, error) {
	certificates, err := parseCertificates(m.GetCertificatePem())
	if err != nil {
		return signed{}, unusable("certificate: %w", err)
	}
	authorities, err := parseCertificates(m.GetAuthorityPem())
	if err != nil {
		return signed{}, unusable("authority: %w", err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range authorities {
		if !a.IsCA {
			return signed{}, unusable("authority: it is the certificate of none")
		}
		if trusted(a) {
			roots.AddCert(a)
		}
	}
	leaf := certificates[0]
	for _, c := range certificates[1:] {
		intermediates.AddCert(c)
	}
	switch {
	case !r.private.PublicKey.Equal(leaf.PublicKey):
		return signed{}, unusable("certificate: it is for another key")
	case leaf.IsCA:
		return signed{}, unusable("certificate: it is an authority's")
	case len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe":
		return signed{}, unusable("certificate: it must have one SPIFFE ID")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		CurrentTime: within(time.Now(), leaf.NotBefore, leaf.NotAfter),
	}); err != nil {
		return signed{}, unusable("certificate: %w", err)
	}
	return signed{leaf, encodeCertificates(certificates), encodeCertificates(authorities)}, nil
}

// mostOff is how far this machine's clock may be off for a certificate that the
// broker has just made to be taken all the same: it is judged by the broker's.
const mostOff = 24 * time.Hour

// within gives now, moved by no more than mostOff so that it lies between two
// times.
func within(now, from, to time.Time) time.Time {
	switch {
	case now.Before(from) && from.Sub(now) <= mostOff:
		return from
	case now.After(to) && now.Sub(to) <= mostOff:
		return to
	}
	return now
}

func unusable(format string, args ...any) error {
	err := fmt.Errorf("the broker answered an unusable "+format, args...)
	return &Error{Transient: true, Message: printable(err.Error()), cause: err}
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > longestPEM {
		return nil, errors.New("it is too long")
	}
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("there is a %q in it", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return nil, errors.New("there is no certificate (PEM) in it")
	}
	return found, nil
}

func encodeCertificates(certificates []*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, c := range certificates {
		// Writing to memory does not fail.
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return text.Bytes()
}
