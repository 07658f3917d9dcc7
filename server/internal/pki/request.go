package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/stokerd/stoker/server/internal/reason"
)

// maxRequest bounds a certificate request in bytes; one with an RSA-4096 key
// and a few names takes about 2 KiB.
const maxRequest = 16 << 10

// ParseRequest reads a PKCS #10 certificate request in DER, checks that its
// key is one that Stoker signs and that the request is signed by that key, and
// gives the key. Names in the request are ignored: who the certificate is for
// is never the requester's to say. Refusals carry CERTIFICATE_REQUEST_INVALID.
func ParseRequest(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxRequest {
		return nil, reason.New(reason.RequestUnsigned, "the certificate request is over %d bytes", maxRequest)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, reason.New(reason.RequestUnsigned, "the certificate request cannot be read: send PKCS #10 in DER").Because(err)
	}
	// Before the signature: verifying one by an outsized RSA key is dear.
	if err := checkKey(request.PublicKey); err != nil {
		return nil, reason.New(reason.RequestUnsigned, "%s", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, reason.New(reason.RequestUnsigned, "the certificate request is not signed by its own key").Because(err)
	}
	return request.PublicKey, nil
}

// checkKey refuses keys that are weak, or so large that using them is an
// attack. The errors are fit for a caller to see.
func checkKey(key crypto.PublicKey) error {
	const kinds = "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits"
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("the key's curve is not accepted: %s", kinds)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("an RSA key of %d bits is not accepted: %s", bits, kinds)
		}
		return nil
	default:
		return fmt.Errorf("the kind of key is not accepted: %s", kinds)
	}
}
