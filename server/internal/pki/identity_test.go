package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/pki"
)

func TestIdentityRoundTrip(t *testing.T) {
	for _, c := range []struct {
		who pki.Identity
		id  string
	}{
		{pki.Identity{TrustDomain: domain, Kind: pki.Agent, Tenant: "acme", Agent: "nas-1"}, "spiffe://backup.example/tenant/acme/agent/nas-1"},
		{pki.Identity{TrustDomain: domain, Kind: pki.Service, Name: "restore"}, "spiffe://backup.example/service/restore"},
		{pki.Identity{TrustDomain: "x", Kind: pki.Operator, Name: "0"}, "spiffe://x/operator/0"},
	} {
		id, err := c.who.ID()
		if err != nil || id.String() != c.id {
			t.Errorf("%+v: ID = %q, %v", c.who, id, err)
		}
		if got, err := pki.ParseIdentity(c.id); err != nil || got != c.who {
			t.Errorf("%s: ParseIdentity = %+v, %v", c.id, got, err)
		}
	}
}

func TestIdentityRefused(t *testing.T) {
	for _, who := range []pki.Identity{
		{},
		{TrustDomain: domain, Kind: "robot", Name: "x"},
		{TrustDomain: "Upper.example", Kind: pki.Service, Name: "x"},
		{TrustDomain: "spiffe://backup.example", Kind: pki.Service, Name: "x"},
		{TrustDomain: strings.Repeat("x", 256), Kind: pki.Service, Name: "x"},
		{TrustDomain: domain, Kind: pki.Service},
		{TrustDomain: domain, Kind: pki.Agent, Tenant: "acme"},
		{TrustDomain: domain, Kind: pki.Agent, Tenant: "acme", Agent: "a/b"},
		{TrustDomain: domain, Kind: pki.Agent, Tenant: "..", Agent: "a"},
		{TrustDomain: domain, Kind: pki.Operator, Name: "Alice"},
	} {
		if id, err := who.ID(); err == nil {
			t.Errorf("%+v gave %s", who, id)
		}
	}
}

func TestValidNames(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "0": true, "a-b": true, "a-": true, strings.Repeat("a", 31): true,
		"": false, "-a": false, "A": false, "a.b": false, "a_b": false, "ä": false, "a/b": false, "a b": false, "a\x00": false,
		strings.Repeat("a", 64): false,
	} {
		if got := pki.ValidTenant(s); got != want {
			t.Errorf("ValidTenant(%q) = %v", s, got)
		}
		if got := pki.ValidName(s); got != want {
			t.Errorf("ValidName(%q) = %v", s, got)
		}
	}
	if long := strings.Repeat("a", 32); pki.ValidTenant(long) || !pki.ValidName(long) {
		t.Error("a tenant has at most 31 characters, others 63")
	}
	if !pki.ValidName(strings.Repeat("a", 63)) {
		t.Error("63 characters are refused")
	}
}

// badIDs are texts that name nobody.
var badIDs = []string{
	"",
	"spiffe://",
	"https://backup.example/tenant/acme/agent/a",
	"SPIFFE://backup.example/tenant/acme/agent/a",
	"spiffe://backup.example",
	"spiffe://backup.example/",
	"spiffe://BACKUP.example/tenant/acme/agent/a",
	"spiffe://user@backup.example/tenant/acme/agent/a",
	"spiffe://backup.example:443/tenant/acme/agent/a",
	"spiffe://backup.example/tenant/acme/agent/a/",
	"spiffe://backup.example/tenant/acme/agent/",
	"spiffe://backup.example/tenant/acme/agent",
	"spiffe://backup.example/tenant/acme",
	"spiffe://backup.example/tenant//agent/a",
	"spiffe://backup.example//tenant/acme/agent/a",
	"spiffe://backup.example/tenant/acme/agent/a/b",
	"spiffe://backup.example/tenant/acme/robot/a",
	"spiffe://backup.example/Tenant/acme/agent/a",
	"spiffe://backup.example/tenant/Acme/agent/a",
	"spiffe://backup.example/tenant/acme/agent/%61",
	"spiffe://backup.example/tenant/acme/agent/a%2fb",
	"spiffe://backup.example/tenant/acme/agent/../agent/a",
	"spiffe://backup.example/tenant/acme/agent/a?x=y",
	"spiffe://backup.example/tenant/acme/agent/a?",
	"spiffe://backup.example/tenant/acme/agent/a#",
	"spiffe://backup.example/tenant/acme/agent/a b",
	"spiffe://backup.example/tenant/acme/agent/-a",
	"spiffe://backup.example/tenant/acme/agent/a_b",
	"spiffe://backup.example/tenant/acme/agent/a.b",
	"spiffe://backup.example/tenant/" + strings.Repeat("a", 32) + "/agent/a",
	"spiffe://backup.example/tenant/acme/agent/" + strings.Repeat("a", 64),
	"spiffe://backup.example/service",
	"spiffe://backup.example/service/",
	"spiffe://backup.example/service/a/b",
	"spiffe://backup.example/operator/Alice",
	"spiffe://backup.example/admin/alice",
	"spiffe://backup.example/tenant/acme/agent/a\x00",
	"spiffe://backup.example/tenant/acme/agent/" + strings.Repeat("a/", 2000),
}

func TestParseIdentityRefuses(t *testing.T) {
	for _, text := range badIDs {
		if who, err := pki.ParseIdentity(text); err == nil {
			t.Errorf("%q is %+v", text, who)
		}
	}
}

// sanOf makes a SAN extension of URIs as they stand, valid or not.
func sanOf(t testing.TB, uris ...string) pkix.Extension {
	t.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}
	value := must[[]byte](t)(asn1.Marshal(names))
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

func leaf(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	return selfSigned(t, &x509.Certificate{
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{sanOf(t, uris...)},
	})
}

const agentURI = "spiffe://backup.example/tenant/acme/agent/nas-1"

func TestIdentify(t *testing.T) {
	who, err := pki.Identify(leaf(t, agentURI))
	want := pki.Identity{TrustDomain: domain, Kind: pki.Agent, Tenant: "acme", Agent: "nas-1"}
	if err != nil || who != want {
		t.Fatalf("Identify = %+v, %v", who, err)
	}
}

func TestIdentifyRefuses(t *testing.T) {
	uri := must[*url.URL](t)(url.Parse(agentURI))
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		say  string
	}{
		"no SAN":       {selfSigned(t, &x509.Certificate{ExtKeyUsage: client}), "no URI SAN"},
		"DNS SAN only": {selfSigned(t, &x509.Certificate{ExtKeyUsage: client, DNSNames: []string{domain}}), "no URI SAN"},
		"two URI SANs": {leaf(t, agentURI, "spiffe://backup.example/service/x"), "more than one"},
		"one URI SAN twice": {leaf(t, agentURI, agentURI),
			"more than one"},
		"authority": {selfSigned(t, &x509.Certificate{ExtKeyUsage: client, URIs: []*url.URL{uri}, IsCA: true, BasicConstraintsValid: true}), "authority"},
		"may sign":  {selfSigned(t, &x509.Certificate{ExtKeyUsage: client, URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageCertSign}), "authority"},
		"no usage":  {selfSigned(t, &x509.Certificate{URIs: []*url.URL{uri}}), "client authentication"},
		"server": {selfSigned(t, &x509.Certificate{URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}),
			"client authentication"},
		"any usage": {selfSigned(t, &x509.Certificate{URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}),
			"client authentication"},
		// A URL would print this one as the valid identity.
		"upper-case scheme": {leaf(t, "SPIFFE://backup.example/tenant/acme/agent/nas-1"), "no SPIFFE ID"},
		"empty fragment":    {leaf(t, agentURI+"#"), "no SPIFFE ID"},
	} {
		who, err := pki.Identify(c.cert)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

// FuzzIdentify signs any bytes as the URI SAN: what is accepted must be an
// identity that prints as exactly those bytes.
func FuzzIdentify(f *testing.F) {
	for _, id := range append(badIDs, agentURI, "spiffe://backup.example/service/restore", "spiffe://x/operator/o") {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		der, err := uncheckedLeaf(t, uri)
		if err != nil {
			return // the x509 package does not read it: the handshake ends there
		}
		who, err := pki.Identify(der)
		if err != nil {
			return
		}
		if id, err := who.ID(); err != nil || id.String() != uri {
			t.Fatalf("%q was taken for %+v, %q, %v", uri, who, id, err)
		}
	})
}

// uncheckedLeaf is a certificate with the URI and nothing else, not signed.
func uncheckedLeaf(t testing.TB, uri string) (*x509.Certificate, error) {
	if len(uri) > 1<<14 {
		return nil, asn1.SyntaxError{}
	}
	template := leafDER(t)
	// The unused signature need not be right: Identify is for certificates
	// whose signature the handshake has checked.
	type tbs struct {
		Version            int `asn1:"optional,explicit,default:0,tag:0"`
		SerialNumber       *big.Int
		SignatureAlgorithm pkix.AlgorithmIdentifier
		Issuer             asn1.RawValue
		Validity           asn1.RawValue
		Subject            asn1.RawValue
		PublicKey          asn1.RawValue
		Extensions         []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
	}
	var parsed tbs
	if _, err := asn1.Unmarshal(template.RawTBSCertificate, &parsed); err != nil {
		t.Fatal(err)
	}
	for i, extension := range parsed.Extensions {
		if extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			parsed.Extensions[i] = sanOf(t, uri)
		}
	}
	body := must[[]byte](t)(asn1.Marshal(parsed))
	der := must[[]byte](t)(asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: body}, parsed.SignatureAlgorithm, asn1.BitString{Bytes: template.Signature, BitLength: 8 * len(template.Signature)}}))
	return x509.ParseCertificate(der)
}

var cachedLeaf *x509.Certificate

func leafDER(t testing.TB) *x509.Certificate {
	if cachedLeaf == nil {
		cachedLeaf = leaf(t, agentURI)
	}
	return cachedLeaf
}

func TestSerial(t *testing.T) {
	cert := selfSigned(t, &x509.Certificate{SerialNumber: big.NewInt(0x0a1b2c)})
	if got := pki.Serial(cert); got != "a1b2c" {
		t.Errorf("Serial = %s", got)
	}
	for text, want := range map[string]string{"a1b2c": "a1b2c", "0A:1B:2C": "a1b2c", "000a1b2c": "a1b2c", "0": "0"} {
		if got, err := pki.ParseSerial(text); err != nil || got != want {
			t.Errorf("ParseSerial(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", "xyz", "-1", "+1", "0x1", "1 2", strings.Repeat("1", 43)} {
		if got, err := pki.ParseSerial(text); err == nil {
			t.Errorf("ParseSerial(%q) = %q", text, got)
		}
	}
}

func TestThumbprint(t *testing.T) {
	a, b := leaf(t, agentURI), leaf(t, agentURI)
	if len(pki.Thumbprint(a)) != 64 || pki.Thumbprint(a) == pki.Thumbprint(b) {
		t.Errorf("thumbprints %s and %s", pki.Thumbprint(a), pki.Thumbprint(b))
	}
}
