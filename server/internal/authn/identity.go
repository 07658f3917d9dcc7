package authn

import (
	"crypto/x509"
	"time"

	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// Kind is the sort of caller.
type Kind = pki.Kind

// The kinds of caller.
const (
	Agent    = pki.Agent
	Service  = pki.Service
	Operator = pki.Operator
)

// Certificate is what is kept of a caller's certificate.
type Certificate struct {
	// ID is the SPIFFE ID.
	ID string
	// Serial is the serial number and Thumbprint the SHA-256 of the whole
	// certificate, both in lower-case hexadecimal.
	Serial, Thumbprint  string
	NotBefore, NotAfter time.Time
	// Vouchers names the authorities that the certificate was verified by, see
	// pki.Vouchers. Empty where the certificate itself was not seen: they are
	// not asked about then.
	Vouchers string
}

// Peer is the party at the other end of a connection, as its certificate names
// it. The zero Peer has no certificate.
type Peer struct {
	Certificate Certificate
	Kind        Kind
	// Tenant and Agent are an agent's names.
	Tenant, Agent string
	// Name is a service's or an operator's name.
	Name string
	// Address is where the peer connects from, and RequestID names the call.
	// The caller sets both; they are for the audit trail alone.
	Address   string
	RequestID string
	// Memory remembers the access token of the connection's calls; nil: none is
	// remembered.
	Memory *Memory
}

// Identify reads the identity from a certificate that the TLS handshake has
// verified. A nil certificate is CERTIFICATE_REQUIRED, one of another trust
// domain TRUST_DOMAIN_FOREIGN, and one that is not a leaf for client
// authentication with exactly one URI SAN of an exact form
// CERTIFICATE_IDENTITY_INVALID. Dates and revocation are Check's.
func Identify(trustDomain string, cert *x509.Certificate) (Peer, error) {
	if cert == nil {
		return Peer{}, errNoCertificate()
	}
	who, err := pki.Identify(cert)
	if err != nil {
		return Peer{}, reason.New(reason.CertificateIdentityInvalid, "%s; get a new certificate", err)
	}
	if who.TrustDomain != trustDomain {
		return Peer{}, reason.New(reason.TrustDomainForeign,
			"the certificate belongs to another trust domain than %s; connect to the broker that issued it", trustDomain)
	}
	id, err := who.ID()
	if err != nil {
		return Peer{}, reason.New(reason.CertificateIdentityInvalid, "the certificate's SPIFFE ID is malformed").Because(err)
	}
	return Peer{
		Certificate: Certificate{
			ID:         id.String(),
			Serial:     pki.Serial(cert),
			Thumbprint: pki.Thumbprint(cert),
			NotBefore:  cert.NotBefore,
			NotAfter:   cert.NotAfter,
		},
		Kind: who.Kind, Tenant: who.Tenant, Agent: who.Agent, Name: who.Name,
	}, nil
}

func errNoCertificate() error {
	return reason.New(reason.CertificateRequired, "the call came without a client certificate; present one")
}

// Principal is a caller who has been authenticated. Names and ids are those of
// the moment; Check says whether they still hold.
type Principal struct {
	Peer
	// TenantID and AgentID are set for agents. TenantID and Tenant are also set
	// for a service that acts for a tenant, and Purpose says what for.
	TenantID, AgentID string
	Purpose           string
	// UserID is set where a user has logged in; Login is the user's login
	// without the tenant.
	UserID, Login string
	// PasswordVersion is that of the password that the login was made with.
	PasswordVersion int64
	// SessionID and SessionExpires are set where the login was an access
	// token.
	SessionID      string
	SessionExpires time.Time
	// Role is set for operators.
	Role Role
}

// Ends is when the principal ends by itself: with its certificate, or with its
// session if that is sooner. A stream sets its alarm by it.
func (p Principal) Ends() time.Time {
	if !p.SessionExpires.IsZero() && p.SessionExpires.Before(p.Certificate.NotAfter) {
		return p.SessionExpires
	}
	return p.Certificate.NotAfter
}
