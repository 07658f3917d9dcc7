package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
)

func TestNewAuthority(t *testing.T) {
	a := newAuthority(t)
	cert := a.Certificate()
	if !cert.IsCA || !cert.MaxPathLenZero || cert.MaxPathLen != 0 {
		t.Error("it could sign further authorities")
	}
	if !cert.PermittedDNSDomainsCritical || len(cert.PermittedURIDomains) != 1 || cert.PermittedURIDomains[0] != domain {
		t.Errorf("name constraints: %v, critical %v", cert.PermittedURIDomains, cert.PermittedDNSDomainsCritical)
	}
	if left := time.Until(cert.NotAfter); left < pki.AuthorityLife-time.Hour {
		t.Errorf("it lasts %s", left)
	}
	if a.TrustDomain() != domain || len(a.Pin()) != 64 || a.Pin() != pki.PinOf(cert) || a.Pin() == newAuthority(t).Pin() {
		t.Errorf("trust domain %s, pin %s", a.TrustDomain(), a.Pin())
	}
}

func TestNewAuthorityRefuses(t *testing.T) {
	for _, td := range []string{"", "Upper", "spiffe://x", "a/b", "10.0.0.1", "a..b", strings.Repeat("x", 256)} {
		if _, err := pki.NewAuthority(td, nil); err == nil {
			t.Errorf("trust domain %q was taken", td)
		}
	}
}

// The constraint must hold in verification, not only stand in the certificate:
// a stolen authority key must not name another trust domain's parties.
func TestNameConstraint(t *testing.T) {
	a := newAuthority(t)
	key := newKey(t)
	signer := must[crypto.Signer](t)(pki.ParseKey(must[secret.String](t)(a.KeyPEM())))
	for uri, ok := range map[string]bool{
		agentURI: true,
		"spiffe://other.example/tenant/acme/agent/nas-1":         false,
		"spiffe://sub.backup.example/tenant/acme/agent/nas-1":    false,
		"spiffe://evilbackup.example/tenant/acme/agent/nas-1":    false,
		"spiffe://backup.example.evil.io/tenant/acme/agent/nas1": false,
	} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{must[*url.URL](t)(url.Parse(uri))},
		}
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.Certificate(), key.Public(), signer))
		cert := must[*x509.Certificate](t)(x509.ParseCertificate(der))
		if err := verify(a, cert, x509.ExtKeyUsageClientAuth); (err == nil) != ok {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func verify(a *pki.Authority, cert *x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestSignClients(t *testing.T) {
	a := newAuthority(t)
	key := newKey(t).Public()
	for id, sign := range map[string]func() (*x509.Certificate, error){
		agentURI:                              func() (*x509.Certificate, error) { return a.SignAgent(key, "acme", "nas-1", time.Hour) },
		"spiffe://backup.example/service/pay": func() (*x509.Certificate, error) { return a.SignService(key, "pay", time.Hour) },
		"spiffe://backup.example/operator/jo": func() (*x509.Certificate, error) { return a.SignOperator(key, "jo", time.Hour) },
	} {
		cert := must[*x509.Certificate](t)(sign())
		if err := verify(a, cert, x509.ExtKeyUsageClientAuth); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if err := verify(a, cert, x509.ExtKeyUsageServerAuth); err == nil {
			t.Errorf("%s may pose as the broker", id)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != id || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
			t.Errorf("%s: names %v %v", id, cert.URIs, cert.DNSNames)
		}
		if _, err := pki.Identify(cert); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 {
			t.Errorf("%s: usage %v %v", id, cert.KeyUsage, cert.ExtKeyUsage)
		}
		if left := time.Until(cert.NotAfter); left > time.Hour || left < 59*time.Minute || time.Since(cert.NotBefore) < time.Minute {
			t.Errorf("%s: from %s to %s", id, cert.NotBefore, cert.NotAfter)
		}
	}
}

func TestSerialNumbersAreRandom(t *testing.T) {
	a := newAuthority(t)
	key := newKey(t).Public()
	seen := map[string]bool{}
	longest := 0
	for range 50 {
		cert := must[*x509.Certificate](t)(a.SignAgent(key, "acme", "nas-1", time.Hour))
		seen[pki.Serial(cert)] = true
		longest = max(longest, cert.SerialNumber.BitLen())
	}
	if len(seen) != 50 || longest < 120 || longest > 128 {
		t.Errorf("%d serial numbers of at most %d bits", len(seen), longest)
	}
}

func TestSignServer(t *testing.T) {
	a := newAuthority(t)
	cert := must[*x509.Certificate](t)(a.SignServer(newKey(t).Public(), []string{"broker.example"}, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Hour))
	if err := verify(a, cert, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	for _, host := range []string{"broker.example", "127.0.0.1"} {
		if err := cert.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if _, err := pki.Identify(cert); err == nil {
		t.Error("a server certificate identifies a caller")
	}
	if _, err := a.SignServer(newKey(t).Public(), nil, nil, time.Hour); err == nil {
		t.Error("signed without a name")
	}
	if _, err := a.SignServer(newKey(t).Public(), []string{""}, nil, time.Hour); err == nil {
		t.Error("signed with an empty name")
	}
}

func TestSignRefuses(t *testing.T) {
	a := newAuthority(t)
	key := newKey(t).Public()
	for name, sign := range map[string]func() (*x509.Certificate, error){
		"tenant": func() (*x509.Certificate, error) { return a.SignAgent(key, "Acme", "nas-1", time.Hour) },
		"agent":  func() (*x509.Certificate, error) { return a.SignAgent(key, "acme", "", time.Hour) },
		"name":   func() (*x509.Certificate, error) { return a.SignService(key, "a/b", time.Hour) },
		"life":   func() (*x509.Certificate, error) { return a.SignOperator(key, "jo", 0) },
		"key":    func() (*x509.Certificate, error) { return a.SignOperator(weakKey(t).Public(), "jo", time.Hour) },
		"no key": func() (*x509.Certificate, error) { return a.SignOperator(nil, "jo", time.Hour) },
	} {
		if _, err := sign(); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func weakKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCertificateEndsWithTheAuthority(t *testing.T) {
	clock := time.Now()
	a := must[*pki.Authority](t)(pki.NewAuthority(domain, func() time.Time { return clock }))
	end := a.Certificate().NotAfter
	clock = end.Add(-time.Hour)
	cert := must[*x509.Certificate](t)(a.SignAgent(newKey(t).Public(), "acme", "nas-1", 48*time.Hour))
	if !cert.NotAfter.Equal(end) {
		t.Errorf("it ends %s, the authority %s", cert.NotAfter, end)
	}
	clock = end.Add(time.Second)
	if _, err := a.SignAgent(newKey(t).Public(), "acme", "nas-1", time.Hour); err == nil {
		t.Error("an authority past its end signed")
	}
}

func TestLoadAuthority(t *testing.T) {
	a := newAuthority(t)
	keyPEM := must[secret.String](t)(a.KeyPEM())
	if strings.Contains(fmt.Sprintf("%v %+v", keyPEM, a), "PRIVATE") {
		t.Error("the key was printed")
	}
	b := must[*pki.Authority](t)(pki.LoadAuthority(a.CertificatePEM(), keyPEM))
	if b.TrustDomain() != domain || b.Pin() != a.Pin() {
		t.Errorf("%s %s", b.TrustDomain(), b.Pin())
	}
	cert := must[*x509.Certificate](t)(b.SignAgent(newKey(t).Public(), "acme", "nas-1", time.Hour))
	if err := verify(a, cert, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
}

func TestLoadAuthorityRefuses(t *testing.T) {
	a := newAuthority(t)
	keyPEM := must[secret.String](t)(a.KeyPEM())
	other := must[secret.String](t)(newAuthority(t).KeyPEM())
	client := must[*x509.Certificate](t)(a.SignAgent(newKey(t).Public(), "acme", "nas-1", time.Hour))
	nameless := selfSigned(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	old := must[*pki.Authority](t)(pki.NewAuthority(domain, func() time.Time { return time.Now().Add(-11 * 365 * 24 * time.Hour) }))
	for name, c := range map[string]struct {
		cert []byte
		key  secret.String
		say  string
	}{
		"no certificate": {nil, keyPEM, "no certificate"},
		"no key":         {a.CertificatePEM(), secret.String{}, "no private key"},
		"two":            {append(a.CertificatePEM(), a.CertificatePEM()...), keyPEM, "one certificate"},
		"leaf":           {pki.EncodeCertificates(client), keyPEM, "may not sign"},
		"foreign":        {pki.EncodeCertificates(nameless), keyPEM, "trust domain"},
		"other key":      {a.CertificatePEM(), other, "another certificate"},
		"ended":          {old.CertificatePEM(), must[secret.String](t)(old.KeyPEM()), "ended"},
	} {
		if _, err := pki.LoadAuthority(c.cert, c.key); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	return must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "spiffe://backup.example/operator/root"},
	}, key))
}

func TestParseRequest(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048 := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "Ed25519": edwards, "RSA": rsa2048} {
		got, err := pki.ParseRequest(request(t, key))
		if err != nil || !got.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	good := request(t, newKey(t))
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	t.Setenv("GODEBUG", "rsa1024min=0")
	rsa1024 := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	for name, der := range map[string][]byte{
		"empty": nil, "garbage": []byte("garbage"), "huge": make([]byte, 20<<10), "cut": good[:len(good)-3],
		"unsigned": tampered, "P-224": request(t, weakKey(t)), "RSA-1024": request(t, rsa1024),
	} {
		if _, err := pki.ParseRequest(der); !reason.Is(err, reason.RequestUnsigned) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(request(f, newKey(f)))
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := pki.ParseRequest(der)
		if (key == nil) == (err == nil) {
			t.Fatalf("key %v, error %v", key, err)
		}
	})
}
