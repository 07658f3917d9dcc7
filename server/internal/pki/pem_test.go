package pki_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/secret"
)

func TestParseCertificates(t *testing.T) {
	one, two := newAuthority(t).Certificate(), leaf(t, agentURI)
	text := append([]byte("# comment\n"), pki.EncodeCertificates(one, two)...)
	certs, err := pki.ParseCertificates(text)
	if err != nil || len(certs) != 2 || !certs[0].Equal(one) || !certs[1].Equal(two) {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	keyPEM := must[secret.String](t)(pki.EncodeKey(newKey(t)))
	for name, bad := range map[string]string{
		"empty":       "",
		"text":        "nothing here",
		"cut off":     string(text[:len(text)-20]),
		"garbled one": strings.Replace(string(text), "MII", "!!!", 1),
		"key":         string(text) + keyPEM.Reveal(),
		"not one":     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})),
	} {
		if _, err := pki.ParseCertificates([]byte(bad)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestParseKey(t *testing.T) {
	key := newKey(t)
	ec := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good := block("PRIVATE KEY", ec)
	for name, text := range map[string]string{"PKCS #8": good, "parameters first": block("EC PARAMETERS", []byte{6, 1, 1}) + good} {
		got, err := pki.ParseKey(secret.New(text))
		if err != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	weak := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(weakKey(t)))
	for name, c := range map[string]struct{ text, say string }{
		"empty":       {"", "no private key"},
		"certificate": {string(newAuthority(t).CertificatePEM()), "CERTIFICATE"},
		"encrypted":   {block("ENCRYPTED PRIVATE KEY", ec), "encrypted"},
		"garbled":     {block("PRIVATE KEY", []byte("canary")), "cannot be read"},
		"old EC":      {block("EC PRIVATE KEY", []byte("canary")), "cannot be read"},
		"old RSA":     {block("RSA PRIVATE KEY", []byte("canary")), "cannot be read"},
		"weak":        {block("PRIVATE KEY", weak), "curve"},
	} {
		_, err := pki.ParseKey(secret.New(c.text))
		if err == nil || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
