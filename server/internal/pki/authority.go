package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/stokerd/stoker/server/internal/secret"
)

const (
	// AuthorityLife is how long an authority's own certificate is good for.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	// backdate is how far before its signing a certificate's life begins, so
	// that a machine whose clock is behind accepts it at once.
	backdate = 5 * time.Minute
	// maxCommonName is the longest common name that RFC 5280 allows, in
	// characters.
	maxCommonName = 64
)

// Authority signs the certificates of one trust domain: agents', services',
// operators', and the broker's own. It is safe for concurrent use.
//
// Its certificate is confined twice: it can sign no further authority (path
// length 0), and URI names only of its trust domain (a critical name
// constraint), so that a provider can trust it beside others.
type Authority struct {
	trustDomain string
	cert        *x509.Certificate
	key         crypto.Signer
	now         func() time.Time
}

// NewAuthority makes an authority with a fresh ECDSA P-256 key and a
// self-signed certificate. It reads the time from now, or from time.Now where
// that is nil. A trust domain that cannot be put under a name constraint (an
// IP address, for one) is refused.
func NewAuthority(trustDomain string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	td, err := parseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	keyID, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	begin := now().Add(-backdate)
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial attribute tells a trust domain's successive authorities
		// apart, which would otherwise have one name.
		Subject:               pkix.Name{CommonName: "Stoker authority", SerialNumber: keyID[:16]},
		NotBefore:             begin,
		NotAfter:              begin.Add(AuthorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{td.ID().URL()},
		PermittedURIDomains:   []string{trustDomain},
		// Some verifiers let a permitted domain cover those below it.
		ExcludedURIDomains:          []string{"." + trustDomain},
		PermittedDNSDomainsCritical: true, // covers the whole extension
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	a := &Authority{trustDomain: trustDomain, cert: cert, key: key, now: now}
	if err := a.rehearse(); err != nil {
		return nil, fmt.Errorf("trust domain %q cannot be used in certificates: %w", trustDomain, err)
	}
	return a, nil
}

// LoadAuthority reads an authority back from its certificate and its PKCS #8
// private key, both PEM.
func LoadAuthority(certPEM []byte, keyPEM secret.String) (*Authority, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("authority's key: %w", err)
	}
	cert := certs[0]
	switch {
	case len(certs) != 1:
		return nil, errors.New("authority's certificate: give one certificate, not a chain")
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, errors.New("authority's certificate: it may not sign certificates")
	case len(cert.URIs) != 1 || cert.URIs[0].Scheme != "spiffe" || cert.URIs[0].Path != "":
		return nil, errors.New("authority's certificate: it must carry its trust domain as its one URI SAN")
	case !publicEqual(cert.PublicKey, key.Public()):
		return nil, errors.New("authority's key: it belongs to another certificate")
	}
	trustDomain := cert.URIs[0].Host
	if _, err := parseTrustDomain(trustDomain); err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	a := &Authority{trustDomain: trustDomain, cert: cert, key: key, now: time.Now}
	if err := a.rehearse(); err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	return a, nil
}

// rehearse signs a certificate and verifies it, so that an authority whose
// certificates nobody would accept is found out before it is used.
func (a *Authority) rehearse() error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	cert, err := a.SignService(key.Public(), "rehearsal", time.Minute)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// TrustDomain is the one trust domain whose identities the authority signs.
func (a *Authority) TrustDomain() string { return a.trustDomain }

// Certificate is the authority's own certificate. It must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// CertificatePEM is the authority's own certificate in PEM: what the other
// side of a connection trusts.
func (a *Authority) CertificatePEM() []byte { return EncodeCertificates(a.cert) }

// KeyPEM is the authority's private key in PKCS #8 PEM, for LoadAuthority.
func (a *Authority) KeyPEM() (secret.String, error) { return EncodeKey(a.key) }

// Pin is the PinOf the authority's certificate.
func (a *Authority) Pin() string { return PinOf(a.cert) }

// PinOf is the SHA-256 of a certificate's DER SubjectPublicKeyInfo, lower-case
// hexadecimal. An agent that knows it recognizes the authority before it has
// the authority's certificate.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// SignAgent signs an agent's certificate for a public key. The identity is the
// given one and nothing from the request. life is at least a second; the
// certificate ends earlier where the authority's own does.
func (a *Authority) SignAgent(key crypto.PublicKey, tenant, agent string, life time.Duration) (*x509.Certificate, error) {
	commonName := tenant + "/" + agent
	if len(commonName) > maxCommonName {
		// It is for people alone; the URI SAN says who it is.
		commonName = agent
	}
	return a.signClient(key, Identity{TrustDomain: a.trustDomain, Kind: Agent, Tenant: tenant, Agent: agent}, commonName, life)
}

// SignService signs a service's certificate, as SignAgent does an agent's.
func (a *Authority) SignService(key crypto.PublicKey, name string, life time.Duration) (*x509.Certificate, error) {
	return a.signClient(key, Identity{TrustDomain: a.trustDomain, Kind: Service, Name: name}, name, life)
}

// SignOperator signs an operator's certificate, as SignAgent does an agent's.
func (a *Authority) SignOperator(key crypto.PublicKey, name string, life time.Duration) (*x509.Certificate, error) {
	return a.signClient(key, Identity{TrustDomain: a.trustDomain, Kind: Operator, Name: name}, name, life)
}

func (a *Authority) signClient(key crypto.PublicKey, who Identity, commonName string, life time.Duration) (*x509.Certificate, error) {
	id, err := who.ID()
	if err != nil {
		return nil, err
	}
	return a.signLeaf(key, &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{id.URL()},
	}, life)
}

// SignServer signs a certificate for one of the broker's listeners, which
// clients know by the given DNS names and addresses (at least one of either).
// It carries no SPIFFE ID: a server certificate identifies no caller.
func (a *Authority) SignServer(key crypto.PublicKey, dnsNames []string, addresses []net.IP, life time.Duration) (*x509.Certificate, error) {
	if len(dnsNames)+len(addresses) == 0 {
		return nil, errors.New("a server certificate needs a name or an address")
	}
	for _, name := range dnsNames {
		if name == "" {
			return nil, errors.New("a server certificate's name must not be empty")
		}
	}
	return a.signLeaf(key, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Stoker broker"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    dnsNames,
		IPAddresses: addresses,
	}, life)
}

// signLeaf fills in what all leaves have in common and signs.
func (a *Authority) signLeaf(key crypto.PublicKey, template *x509.Certificate, life time.Duration) (*x509.Certificate, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if life < time.Second {
		return nil, errors.New("a certificate's life is at least a second")
	}
	now := a.now()
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the authority's own certificate ended on %s: make a new authority", a.cert.NotAfter.Format(time.DateOnly))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = end
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	return sign(template, a.cert, key, a.key)
}

// sign makes the certificate and reads it back, so that callers have it as
// others will.
func sign(template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newSerial draws 128 random bits, never zero.
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	n, err := rand.Int(rand.Reader, limit.Sub(limit, big.NewInt(1)))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// NewKey makes an ECDSA P-256 key: the cheapest of the usual kinds in a TLS
// handshake that every client can verify.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// keyID is the hexadecimal SHA-256 of a public key.
func keyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
