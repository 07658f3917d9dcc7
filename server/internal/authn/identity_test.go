package authn

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

func certificate(t testing.TB, a *pki.Authority, tenant, agent string) *x509.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.SignAgent(key.Public(), tenant, agent, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestIdentify(t *testing.T) {
	a, err := pki.NewAuthority(domain, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t, a, "acme", "nas-1")
	got, err := Identify(domain, cert)
	want := Peer{
		Certificate: Certificate{
			ID: "spiffe://backup.example/tenant/acme/agent/nas-1", Serial: pki.Serial(cert), Thumbprint: pki.Thumbprint(cert),
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		},
		Kind: Agent, Tenant: "acme", Agent: "nas-1",
	}
	if err != nil || got != want {
		t.Errorf("Identify = %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		domain string
		cert   *x509.Certificate
		want   reason.Reason
	}{
		"no certificate":  {domain, nil, reason.CertificateRequired},
		"another domain":  {"other.example", cert, reason.TrustDomainForeign},
		"domain below":    {"sub.backup.example", cert, reason.TrustDomainForeign},
		"the authority":   {domain, a.Certificate(), reason.CertificateIdentityInvalid},
		"no URI SAN":      {domain, altered(cert), reason.CertificateIdentityInvalid},
		"two URI SANs":    {domain, altered(cert, want.Certificate.ID, want.Certificate.ID), reason.CertificateIdentityInvalid},
		"trailing slash":  {domain, altered(cert, want.Certificate.ID+"/"), reason.CertificateIdentityInvalid},
		"upper case":      {domain, altered(cert, "spiffe://backup.example/tenant/Acme/agent/nas-1"), reason.CertificateIdentityInvalid},
		"percent":         {domain, altered(cert, "spiffe://backup.example/tenant/%61cme/agent/nas-1"), reason.CertificateIdentityInvalid},
		"unknown path":    {domain, altered(cert, "spiffe://backup.example/robot/r2"), reason.CertificateIdentityInvalid},
		"no client usage": {domain, withoutUsage(cert), reason.CertificateIdentityInvalid},
	} {
		if peer, err := Identify(c.domain, c.cert); reason.Of(err) != c.want || peer != (Peer{}) {
			t.Errorf("%s: %+v, %v", name, peer, err)
		}
	}
}

// altered is the certificate with other URI SANs. Its signature is wrong,
// which is not Identify's to see.
func altered(cert *x509.Certificate, uris ...string) *x509.Certificate {
	c := *cert
	c.Extensions = nil
	if len(uris) > 0 {
		var names []asn1.RawValue
		for _, uri := range uris {
			names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
		}
		value, err := asn1.Marshal(names)
		if err != nil {
			panic(err)
		}
		c.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	return &c
}

func withoutUsage(cert *x509.Certificate) *x509.Certificate {
	c := *cert
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return &c
}

// FuzzIdentify takes any bytes for the URI SAN: whoever is let in is of the
// trust domain and has exactly the identity that was signed.
func FuzzIdentify(f *testing.F) {
	a, err := pki.NewAuthority(domain, nil)
	if err != nil {
		f.Fatal(err)
	}
	cert := certificate(f, a, "acme", "nas-1")
	for _, uri := range []string{
		"spiffe://backup.example/tenant/acme/agent/nas-1", "spiffe://backup.example/service/x", "spiffe://backup.example/operator/x",
		"spiffe://other.example/operator/x", "spiffe://backup.example/tenant/acme/agent/nas-1/", "SPIFFE://backup.example/operator/x", "",
	} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		peer, err := Identify(domain, altered(cert, uri))
		switch {
		case err != nil && peer != (Peer{}):
			t.Fatalf("%q: refused, yet %+v", uri, peer)
		case err == nil && peer.Certificate.ID != uri:
			t.Fatalf("%q is %q", uri, peer.Certificate.ID)
		case err == nil && (peer.Kind == Agent) != (pki.ValidTenant(peer.Tenant) && pki.ValidName(peer.Agent)):
			t.Fatalf("%q: %+v", uri, peer)
		case err == nil && (peer.Kind == Agent) == pki.ValidName(peer.Name):
			t.Fatalf("%q: %+v", uri, peer)
		}
	})
}

func TestEnds(t *testing.T) {
	now := time.Now()
	p := Principal{Peer: Peer{Certificate: Certificate{NotAfter: now}}}
	if !p.Ends().Equal(now) {
		t.Error("without a session it ends with the certificate")
	}
	if p.SessionExpires = now.Add(time.Hour); !p.Ends().Equal(now) {
		t.Error("the certificate ends first")
	}
	if p.SessionExpires = now.Add(-time.Hour); !p.Ends().Equal(p.SessionExpires) {
		t.Error("the session ends first")
	}
}

func TestContext(t *testing.T) {
	if _, ok := PrincipalFrom(t.Context()); ok {
		t.Error("a principal from nowhere")
	}
	want := Principal{UserID: "u"}
	if got, ok := PrincipalFrom(WithPrincipal(t.Context(), want)); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
}
