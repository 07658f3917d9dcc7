package brokertest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
	"github.com/stokerd/stoker/server/internal/storage/sqlite"
)

// provide writes the files of a provider's own PKI and configures them. The
// revocation list is empty until Revoke.
func (b *Broker) provide(authorities []*pki.Authority) {
	b.t.Helper()
	b.own = authorities[0]
	b.AuthorityPEM = b.own.CertificatePEM()
	b.Roots.AddCert(b.own.Certificate())
	own := b.pair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return b.own.SignServer(key, b.Config.Names, nil, 24*time.Hour)
	})
	var bundle []byte
	for _, a := range authorities {
		bundle = append(bundle, a.CertificatePEM()...)
	}
	tls := &b.Config.TLS
	tls.Certificate, tls.Key = WritePair(b.t, filepath.Join(b.dir, "server"), own)
	tls.ClientAuthorities, tls.RevocationList = filepath.Join(b.dir, "clients.pem"), filepath.Join(b.dir, "crl.pem")
	check(b.t, os.WriteFile(tls.ClientAuthorities, bundle, 0o600))
	b.Revoke()
}

// Revoke publishes a revocation list of the provider's own PKI with the
// certificates, and no others.
func (b *Broker) Revoke(certs ...tls.Certificate) {
	b.t.Helper()
	now := time.Now()
	list := &x509.RevocationList{
		Number: big.NewInt(now.UnixNano()), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
	}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: Leaf(c).SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, b.own.Certificate(), authorityKey(b.own))
	check(b.t, err)
	// As an administrator should: never half a file.
	next := b.Config.TLS.RevocationList + ".next"
	check(b.t, os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o600))
	check(b.t, os.Rename(next, b.Config.TLS.RevocationList))
}

// signOwn signs for an operator or a service with the provider's own PKI.
func (b *Broker) signOwn(kind, name string) tls.Certificate {
	b.t.Helper()
	sign := b.own.SignOperator
	if kind == string(pki.Service) {
		sign = b.own.SignService
	}
	return b.pair(func(key crypto.PublicKey) (*x509.Certificate, error) { return sign(key, name, 24*time.Hour) })
}

// Authority is the authority that clients' certificates are signed by, so that
// a test can sign what no broker would.
func (b *Broker) Authority() *pki.Authority {
	b.t.Helper()
	if b.own != nil {
		return b.own
	}
	key := b.keys("authority", func(storage.SealedKey) string { return "authority" })[0]
	a, err := pki.LoadAuthority(key.Public, secret.New(string(key.Sealed)))
	check(b.t, err)
	return a
}

// SignAgent signs for an agent, which need not exist, by no call of the
// broker's: for any life from a second.
func (b *Broker) SignAgent(tenant, name string, life time.Duration) tls.Certificate {
	b.t.Helper()
	return b.pair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		return b.Authority().SignAgent(key, tenant, name, life)
	})
}

// Forge signs what the template says, with a new key: the serial number is
// random where the template has none.
func Forge(authority *pki.Authority, template *x509.Certificate) (tls.Certificate, error) {
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		if err != nil {
			return tls.Certificate{}, err
		}
		template.SerialNumber = serial
	}
	return pki.NewPair(func(key crypto.PublicKey) (*x509.Certificate, error) {
		der, err := x509.CreateCertificate(rand.Reader, template, authority.Certificate(), key, authorityKey(authority))
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	})
}

// TokenKey is the key that signs access tokens, with its id.
func (b *Broker) TokenKey() (id string, key []byte) {
	b.t.Helper()
	k := b.keys("token", func(k storage.SealedKey) string { return "token/" + k.ID })[0]
	return k.ID, k.Sealed
}

// Leaf is the certificate's own part of a pair.
func Leaf(c tls.Certificate) *x509.Certificate {
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		panic(err) // the fixture made it
	}
	return cert
}

func (b *Broker) pair(sign func(crypto.PublicKey) (*x509.Certificate, error)) tls.Certificate {
	b.t.Helper()
	made, err := pki.NewPair(sign)
	check(b.t, err)
	return made
}

// WritePair writes a certificate as PATH.pem and its key as PATH.key, and gives
// the two names.
func WritePair(t testing.TB, path string, c tls.Certificate) (certificate, key string) {
	t.Helper()
	text, err := pki.EncodeKey(c.PrivateKey.(crypto.Signer))
	check(t, err)
	certificate, key = path+".pem", path+".key"
	check(t, os.WriteFile(certificate, pki.EncodeCertificates(Leaf(c)), 0o644))
	check(t, os.WriteFile(key, []byte(text.Reveal()), 0o600))
	return certificate, key
}

// authorityKey is an authority's private key.
func authorityKey(a *pki.Authority) crypto.Signer {
	text, err := a.KeyPEM()
	if err != nil {
		panic(err) // it has signed already
	}
	key, err := pki.ParseKey(text)
	if err != nil {
		panic(err)
	}
	return key
}

// keys opens the broker's own keys of a purpose, whether or not it runs: each
// one's Sealed is the key itself then.
func (b *Broker) keys(purpose string, sealedFor func(storage.SealedKey) string) []storage.SealedKey {
	b.t.Helper()
	ctx := context.Background()
	text, err := os.ReadFile(b.Config.EncryptionKeyFile)
	check(b.t, err)
	sealer, err := pki.NewSealer(secret.New(string(text)))
	check(b.t, err)
	store, err := sqlite.Open(ctx, b.Config.Storage.SQLite, slog.New(slog.DiscardHandler))
	check(b.t, err)
	defer func() { check(b.t, store.Close()) }()
	opened, err := store.ListKeys(ctx, purpose)
	check(b.t, err)
	for i, k := range opened {
		opened[i].Sealed, err = sealer.Open(sealedFor(k), k.Sealed)
		check(b.t, err)
	}
	return opened
}
