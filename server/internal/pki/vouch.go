package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
)

// Vouchers names the authorities of a certificate's verified chains, so that it
// can be asked later whether they are still trusted. It is a text of about 100
// bytes for each authority, to be given to Reloader.Vouched and otherwise
// opaque; empty for no chains.
//
// An authority is told by its name and key, as in verification: one whose own
// certificate is renewed stays the same.
func Vouchers(chains [][]*x509.Certificate) string {
	var b strings.Builder
	for n, chain := range chains {
		if n > 0 {
			b.WriteByte(';')
		}
		for m, authority := range chain[min(1, len(chain)):] {
			if m > 0 {
				b.WriteByte(',')
			}
			b.WriteString(anchor(authority))
			b.WriteByte('/')
			b.WriteString(Serial(authority))
		}
	}
	return b.String()
}

// anchor tells an authority by its name and key.
func anchor(authority *x509.Certificate) string {
	h := sha256.New()
	h.Write(authority.RawSubject)
	h.Write(authority.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h.Sum(nil))
}

// Vouched says whether one of the chains still leads to a trusted authority,
// over none that is revoked.
func (r *Reloader) Vouched(vouchers string) bool {
	current := r.current.Load()
	for chain := range strings.SplitSeq(vouchers, ";") {
		if current.vouches(chain) {
			return true
		}
	}
	return false
}

func (m *material) vouches(chain string) bool {
	for link := range strings.SplitSeq(chain, ",") {
		authority, serial, _ := strings.Cut(link, "/")
		if _, revoked := m.revoked[serial]; revoked {
			return false
		}
		if _, trusted := m.anchors[authority]; trusted {
			return true
		}
	}
	return false
}
