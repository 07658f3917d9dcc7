package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
)

// A chain that was verified stays good as long as its authorities do.
func TestVouched(t *testing.T) {
	rootKey, otherKey, middleKey, leafKey := newKey(t), newKey(t), newKey(t), newKey(t)
	sign := func(serial int64, name string, authority bool, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: authority,
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		if parent == nil {
			parent = template
		}
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))
		return must[*x509.Certificate](t)(x509.ParseCertificate(der))
	}
	root, other := sign(1, "root", true, nil, rootKey, rootKey), sign(1, "other", true, nil, otherKey, otherKey)
	middle := sign(2, "middle", true, root, middleKey, rootKey)
	leaf := sign(3, "leaf", false, middle, leafKey, middleKey)
	renewed := sign(7, "root", true, nil, rootKey, rootKey)
	impostor := sign(1, "root", true, nil, otherKey, otherKey)
	list := func(serials ...int64) []byte {
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
		for _, n := range serials {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
		}
		return must[[]byte](t)(x509.CreateRevocationList(rand.Reader, template, other, otherKey))
	}
	long, direct, crossed := []*x509.Certificate{leaf, middle, root}, []*x509.Certificate{leaf, root}, []*x509.Certificate{leaf, middle, other}
	for name, c := range map[string]struct {
		chains  [][]*x509.Certificate
		bundle  []*x509.Certificate
		revoked []int64
		want    bool
	}{
		"trusted":                  {[][]*x509.Certificate{long}, []*x509.Certificate{other, root}, nil, true},
		"its certificate renewed":  {[][]*x509.Certificate{long}, []*x509.Certificate{other, renewed}, nil, true},
		"the intermediate trusted": {[][]*x509.Certificate{long}, []*x509.Certificate{other, middle}, nil, true},
		"removed":                  {[][]*x509.Certificate{long}, []*x509.Certificate{other}, nil, false},
		"another of its name":      {[][]*x509.Certificate{long}, []*x509.Certificate{other, impostor}, nil, false},
		"a second chain":           {[][]*x509.Certificate{long, crossed}, []*x509.Certificate{other}, nil, true},
		"the intermediate revoked": {[][]*x509.Certificate{long, crossed}, []*x509.Certificate{other, root}, []int64{2}, false},
		"one of two revoked":       {[][]*x509.Certificate{long, direct}, []*x509.Certificate{other, root}, []int64{2}, true},
		"the leaf is not asked":    {[][]*x509.Certificate{direct}, []*x509.Certificate{other, root}, []int64{3}, true},
		"no chain":                 {nil, []*x509.Certificate{other, root}, nil, false},
		"an empty chain":           {[][]*x509.Certificate{nil, {leaf}}, []*x509.Certificate{other, root}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.write(s.cfg.ClientCA, pki.EncodeCertificates(c.bundle...))
			s.write(s.cfg.CRL, list(c.revoked...))
			if got := s.reloader().Vouched(pki.Vouchers(c.chains)); got != c.want {
				t.Errorf("vouched: %v", got)
			}
		})
	}
}
