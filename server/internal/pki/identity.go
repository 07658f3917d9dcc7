package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Kind is the sort of party that a certificate names.
type Kind string

// The kinds of party.
const (
	Agent    Kind = "agent"
	Service  Kind = "service"
	Operator Kind = "operator"
)

// maxIdentity is the longest SPIFFE ID that the SPIFFE standard lets a reader
// meet, in bytes.
const maxIdentity = 2048

// Identity is the party that a certificate names, as read from its SPIFFE ID.
// An agent has Tenant and Agent, a service or operator has Name.
type Identity struct {
	TrustDomain   string
	Kind          Kind
	Tenant, Agent string
	Name          string
}

// The longest names, in bytes.
const (
	maxTenant = 31
	maxName   = 63
)

// ValidTenant says whether s can name a tenant: [a-z0-9][a-z0-9-]{0,30}.
func ValidTenant(s string) bool { return validName(s, maxTenant) }

// ValidName says whether s can name an agent, service or operator:
// [a-z0-9][a-z0-9-]{0,62}.
func ValidName(s string) bool { return validName(s, maxName) }

func validName(s string, most int) bool {
	if len(s) == 0 || len(s) > most || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// longest is the limit of the name that follows a segment.
func longest(segment string) int {
	if segment == "tenant" {
		return maxTenant
	}
	return maxName
}

// ID gives the identity's SPIFFE ID. It refuses names that ParseIdentity would
// not read back.
func (i Identity) ID() (spiffeid.ID, error) {
	td, err := parseTrustDomain(i.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	var segments []string
	switch i.Kind {
	case Agent:
		segments = []string{"tenant", i.Tenant, "agent", i.Agent}
	case Service, Operator:
		segments = []string{string(i.Kind), i.Name}
	default:
		return spiffeid.ID{}, fmt.Errorf("%q is no kind of identity", i.Kind)
	}
	for n := 1; n < len(segments); n += 2 {
		if most := longest(segments[n-1]); !validName(segments[n], most) {
			return spiffeid.ID{}, fmt.Errorf("%.70q is no valid %s name: use lower-case letters, digits and dashes, at most %d",
				segments[n], segments[n-1], most)
		}
	}
	return spiffeid.FromSegments(td, segments...)
}

// ParseIdentity reads a SPIFFE ID. Only the exact forms
// spiffe://TD/tenant/T/agent/A, spiffe://TD/service/S and
// spiffe://TD/operator/O are identities; nothing is normalized, so that two
// texts never name one party. The errors are fit for a caller to see.
func ParseIdentity(text string) (Identity, error) {
	if len(text) > maxIdentity {
		return Identity{}, errors.New("the URI is longer than a SPIFFE ID may be")
	}
	id, err := spiffeid.FromString(text)
	if err != nil {
		return Identity{}, fmt.Errorf("the URI is no SPIFFE ID: %w", err)
	}
	found := Identity{TrustDomain: id.TrustDomain().Name()}
	segments := strings.Split(id.Path(), "/")[1:]
	switch {
	case len(segments) == 4 && segments[0] == "tenant" && segments[2] == "agent":
		found.Kind, found.Tenant, found.Agent = Agent, segments[1], segments[3]
	case len(segments) == 2 && (segments[0] == string(Service) || segments[0] == string(Operator)):
		found.Kind, found.Name = Kind(segments[0]), segments[1]
	default:
		return Identity{}, errors.New("the SPIFFE ID names no agent, service or operator")
	}
	for n := 1; n < len(segments); n += 2 {
		if !validName(segments[n], longest(segments[n-1])) {
			return Identity{}, fmt.Errorf("the SPIFFE ID has a malformed %s name", segments[n-1])
		}
	}
	return found, nil
}

// oidSubjectAltName is id-ce-subjectAltName.
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Identify reads the identity from a client certificate that has been verified
// against the trusted authorities; it checks no signature and no date. The
// certificate must be a leaf for client authentication with exactly one URI
// SAN. The errors are fit for a caller to see.
//
// The URI is taken from the certificate's own bytes: the x509 package parses
// it into a URL, and what a URL prints may differ from what was signed.
func Identify(cert *x509.Certificate) (Identity, error) {
	switch {
	case cert.IsCA, cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return Identity{}, errors.New("an authority's certificate identifies no caller")
	case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return Identity{}, errors.New("the certificate is not for client authentication")
	}
	uris, err := uriNames(cert)
	switch {
	case err != nil:
		return Identity{}, err
	case len(uris) == 0:
		return Identity{}, errors.New("the certificate has no URI SAN")
	case len(uris) > 1:
		return Identity{}, errors.New("the certificate has more than one URI SAN")
	}
	return ParseIdentity(uris[0])
}

// uriNames lists the URI SANs as they stand in the certificate.
func uriNames(cert *x509.Certificate) ([]string, error) {
	const tagURI = 6
	var uris []string
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &names); err != nil || len(rest) > 0 {
			return nil, errors.New("the certificate's SAN extension is malformed")
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}

// parseTrustDomain checks a bare trust domain name.
func parseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return td, fmt.Errorf("trust domain %q: %w", name, err)
	}
	if td.Name() != name {
		return td, fmt.Errorf("trust domain %q: give the name alone, %s", name, td.Name())
	}
	if len(name) > 255 {
		return td, errors.New("the trust domain is longer than 255 characters")
	}
	return td, nil
}

// Serial gives a certificate's serial number the way Stoker writes it:
// lower-case hexadecimal without leading zeros.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// ParseSerial reads a serial number as people and tools write it (either case,
// colons between bytes, leading zeros) and gives it as Serial does.
func ParseSerial(text string) (string, error) {
	digits := strings.ReplaceAll(text, ":", "")
	for _, c := range digits {
		if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return "", errors.New("a serial number is hexadecimal")
		}
	}
	// RFC 5280 bounds serial numbers to 20 bytes.
	if len(digits) == 0 || len(digits) > 42 {
		return "", errors.New("a serial number has 1 to 20 bytes")
	}
	n, ok := new(big.Int).SetString(digits, 16)
	if !ok {
		return "", errors.New("a serial number is hexadecimal")
	}
	return n.Text(16), nil
}

// Thumbprint is the SHA-256 of the whole certificate in DER, lower-case
// hexadecimal: what sessions are bound to (RFC 8705, section 3.1).
func Thumbprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}
