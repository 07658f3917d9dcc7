package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Whatever a file of revocation lists has in it: no list counts that a trusted
// authority did not sign, so that nobody revokes certificates by writing files.
func FuzzRevocationList(f *testing.F) {
	authority, err := NewAuthority("test.example", nil)
	if err != nil {
		f.Fatal(err)
	}
	stranger, err := NewAuthority("test.example", nil)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	for _, serials := range [][]int64{nil, {1}, {1, 255, 1 << 40}} {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
		for _, s := range serials {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: now})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, authority.cert, authority.key)
		if err != nil {
			f.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: der})
		for _, seed := range [][]byte{der, text, append(text, text...), text[:len(text)/2]} {
			f.Add(seed)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := parseRevocations(data, []*x509.Certificate{authority.cert})
		if err == nil && found.serials == nil {
			t.Error("a list without a set of serial numbers")
		}
		if err != nil && len(found.serials) > 0 {
			t.Errorf("%v, and yet %d serial numbers", err, len(found.serials))
		}
		// The authority of the same trust domain that nobody trusts: only a file
		// without any list is taken.
		if other, err := parseRevocations(data, []*x509.Certificate{stranger.cert}); err == nil && len(other.serials) > 0 {
			t.Errorf("a list that %s did not sign was taken", stranger.cert.Subject)
		}
	})
}
