package server_test

import (
	"os"
	"slices"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// An authority that is not trusted any more vouches for nobody, neither on
// streams nor on connections that are open.
func TestAuthorityRemovedDuringTheStream(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	lost, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours, lost}})
	a, other := join(t, b, "acme", time.Hour), join(t, b, "other", time.Hour)
	a = a.with(b, forge(t, lost, client(t, laptop)))
	s, kept := subscribe(t, a), subscribe(t, other)
	s.credential()
	kept.credential()
	bundle := b.Config.TLS.ClientAuthorities
	// One is added and the other removed: what the kept one vouches for stays.
	fresh, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	wantOK(t, os.WriteFile(bundle+".next", slices.Concat(fresh.CertificatePEM(), ours.CertificatePEM()), 0o600))
	wantOK(t, os.Rename(bundle+".next", bundle))
	published := time.Now()
	s.end()
	wantReason(t, s.err, reason.CertificateRevoked)
	if late := s.at.Sub(published); late > pki.DefaultInterval+prompt {
		t.Errorf("the stream ended %s after the bundle was there", late)
	}
	_, err = a.fetch(t, "nightly")
	wantReason(t, err, reason.CertificateRevoked)
	setAccess(t, b, other, stokerv1.Access_ACCESS_RESTORE)
	kept.credential()
	other.works(t)
}
