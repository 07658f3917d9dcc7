package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stokerd/stoker/server/internal/pki"
)

const domain = "backup.example"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time pass in a test's bubble (testing/synctest).
func pass(d time.Duration) { <-time.After(d) }

// must fails the test on err and gives v.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newAuthority(t testing.TB) *pki.Authority {
	t.Helper()
	return must[*pki.Authority](t)(pki.NewAuthority(domain, nil))
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCRL makes a revocation list of the authority in PEM.
func newCRL(t testing.TB, a *pki.Authority, template x509.RevocationList, serials ...*big.Int) []byte {
	t.Helper()
	if template.Number == nil {
		template.Number = big.NewInt(1)
	}
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = time.Now().Add(time.Hour)
	}
	for _, serial := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: template.ThisUpdate})
	}
	keyPEM, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	key := must[crypto.Signer](t)(pki.ParseKey(keyPEM))
	der := must[[]byte](t)(x509.CreateRevocationList(rand.Reader, &template, a.Certificate(), key))
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// selfSigned makes a certificate from a template as it stands, signed by
// nobody else: for what an authority would never sign.
func selfSigned(t testing.TB, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(1)
	}
	template.Subject = pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der))
}
