package server_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// alert opens a connection, says nothing, and gives what the broker made of the
// certificate. A certificate is sent even if the broker did not ask for one of
// its authority, as a hostile client would.
func alert(t *testing.T, b *brokertest.Broker, config *tls.Config) error {
	t.Helper()
	config.NextProtos = []string{"h2"}
	if len(config.Certificates) > 0 {
		cert := config.Certificates[0]
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", b.Addr)
	if err != nil {
		return err // before TLS 1.3 the refusal is part of the handshake
	}
	defer func() { _ = conn.Close() }()
	wantOK(t, conn.SetReadDeadline(time.Now().Add(patience)))
	// The broker's settings frame, if it took the certificate.
	_, err = conn.Read(make([]byte, 9))
	return err
}

// uri reads a URI SAN.
func uri(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	wantOK(t, err)
	return u
}

// client is the template of a certificate as the built-in authority makes it,
// for changing.
func client(t *testing.T, uris ...string) *x509.Certificate {
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "acme/laptop"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	for _, u := range uris {
		c.URIs = append(c.URIs, uri(t, u))
	}
	return c
}

func forge(t *testing.T, authority *pki.Authority, template *x509.Certificate) tls.Certificate {
	t.Helper()
	cert, err := brokertest.Forge(authority, template)
	wantOK(t, err)
	return cert
}

const laptop = "spiffe://" + brokertest.TrustDomain + "/tenant/acme/agent/laptop"

// Who is refused in the handshake is told by a TLS alert, and reaches no call.
func TestCertificatesThatTheHandshakeRefuses(t *testing.T) {
	b := site(t, brokertest.Options{})
	good := join(t, b, "acme", time.Hour)
	ours := b.Authority()
	other, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	old := client(t, laptop)
	old.NotBefore, old.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Second)
	early := client(t, laptop)
	early.NotBefore = time.Now().Add(time.Minute)
	server := client(t, laptop)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}

	for _, c := range []struct {
		name string
		cert tls.Certificate
		// alert is how the broker's TLS alert reads.
		alert string
	}{
		{"no certificate", tls.Certificate{}, "certificate required"},
		{"of another authority", forge(t, other, client(t, laptop)), "unknown certificate authority"},
		{"signed by itself", selfSigned(t), "unknown certificate authority"},
		{"signed by an agent", signedByAgent(t, good.cert), "unknown certificate authority"},
		{"expired", forge(t, ours, old), "expired certificate"},
		{"not yet begun", forge(t, ours, early), "expired certificate"},
		{"for servers", forge(t, ours, server), "bad certificate"},
		// The authority is confined to its trust domain by a name constraint.
		{"of another trust domain", forge(t, ours, client(t, "spiffe://other.example/tenant/acme/agent/laptop")), "bad certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := alert(t, b, b.TLS(c.cert)); err == nil || !strings.Contains(err.Error(), c.alert) {
				t.Errorf("the handshake ended with %v, want %q", err, c.alert)
			}
			stranger := good.with(b, c.cert)
			if err := stranger.whoami(stranger.ctx(t)); !isCode(err, codes.Unavailable) {
				t.Errorf("a call ended with %v", err)
			}
		})
	}
	t.Run("before TLS 1.3", func(t *testing.T) {
		config := b.TLS(good.cert)
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if err := alert(t, b, config); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("the handshake ended with %v", err)
		}
	})
	if n := len(records(t, b, "session.refused", "", "")) + len(records(t, b, "call.refused", "", "")); n != 0 {
		t.Errorf("%d audit records about who was never let in", n)
	}
	good.works(t)
}

// selfSigned is a certificate under its own key that says what ours says.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	wantOK(t, err)
	template := client(t, laptop)
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	wantOK(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// signedByAgent is a certificate that an agent signed with its own, as if that
// were an authority's, with the chain to the true authority.
func signedByAgent(t *testing.T, agent tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	wantOK(t, err)
	template := client(t, "spiffe://"+brokertest.TrustDomain+"/operator/"+brokertest.Operator)
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, brokertest.Leaf(agent), key.Public(), agent.PrivateKey)
	wantOK(t, err)
	return tls.Certificate{Certificate: [][]byte{der, agent.Certificate[0]}, PrivateKey: key}
}

// A certificate that chains may still be nobody's here: the call says why.
func TestCertificatesThatNameNobody(t *testing.T) {
	b := site(t, brokertest.Options{})
	good := join(t, b, "acme", time.Hour)
	ours := b.Authority()
	spiffe := "spiffe://" + brokertest.TrustDomain
	for _, c := range []struct {
		name string
		uris []string
		want reason.Reason
	}{
		{"no URI SAN", nil, reason.CertificateIdentityInvalid},
		{"two URI SANs", []string{laptop, spiffe + "/tenant/acme/agent/desktop"}, reason.CertificateIdentityInvalid},
		{"the same URI SAN twice", []string{laptop, laptop}, reason.CertificateIdentityInvalid},
		{"not SPIFFE", []string{"https://" + brokertest.TrustDomain + "/tenant/acme/agent/laptop"}, reason.CertificateIdentityInvalid},
		{"a path without an agent", []string{spiffe + "/tenant/acme"}, reason.CertificateIdentityInvalid},
		{"a path that goes on", []string{laptop + "/x"}, reason.CertificateIdentityInvalid},
		{"upper case", []string{spiffe + "/tenant/ACME/agent/laptop"}, reason.CertificateIdentityInvalid},
		{"a path that climbs", []string{spiffe + "/tenant/other/../acme/agent/laptop"}, reason.CertificateIdentityInvalid},
		{"an unknown tenant", []string{spiffe + "/tenant/nobody/agent/laptop"}, reason.TenantUnknown},
		{"an unknown agent", []string{spiffe + "/tenant/acme/agent/desktop"}, reason.AgentUnknown},
		{"a service", []string{spiffe + "/service/acme"}, reason.ServiceUnknown},
		{"an operator", []string{spiffe + "/operator/acme"}, reason.OperatorUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			stranger := good.with(b, forge(t, ours, client(t, c.uris...)))
			st := wantReason(t, stranger.whoami(stranger.ctx(t)), c.want)
			nothingOf(t, "the answer", st.String(), map[string]string{"password": good.password})
			_, err := stranger.fetch(t, "nightly")
			wantReason(t, err, c.want)
			wantReason(t, opened(t, stranger), c.want)
		})
	}
	good.works(t)
}

// opened gives why a stream ends at once.
func opened(t *testing.T, a agent) error {
	t.Helper()
	s := subscribe(t, a)
	for _, m := range s.end() {
		t.Errorf("the stream said %v", m)
	}
	return s.err
}

// A provider may trust an authority that signs for other trust domains too.
func TestCertificateOfAnotherTrustDomain(t *testing.T) {
	ours, err := pki.NewAuthority(brokertest.TrustDomain, nil)
	wantOK(t, err)
	foreign, err := pki.NewAuthority("other.example", nil)
	wantOK(t, err)
	b := site(t, brokertest.Options{PKI: []*pki.Authority{ours, foreign}})
	good := join(t, b, "acme", time.Hour)
	stranger := good.with(b, forge(t, foreign, client(t, "spiffe://other.example/tenant/acme/agent/laptop")))
	wantReason(t, stranger.whoami(stranger.ctx(t)), reason.TrustDomainForeign)
	_, err = stranger.fetch(t, "nightly")
	wantReason(t, err, reason.TrustDomainForeign)
	good.works(t)
}
