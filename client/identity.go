package client

import (
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// Identity is who the broker takes this agent for.
type Identity struct {
	// SPIFFEID is the URI in the certificate.
	SPIFFEID string `json:"spiffe_id"`
	// CertificateSerial is lower-case hexadecimal.
	CertificateSerial  string    `json:"certificate_serial"`
	CertificateExpires time.Time `json:"certificate_expires"`
	Tenant             string    `json:"tenant"`
	Agent              string    `json:"agent"`
	// Login is the user's, without the tenant.
	Login string `json:"login"`
	// SessionID and SessionExpires are of the session, where there is one.
	SessionID      string    `json:"session_id,omitempty"`
	SessionExpires time.Time `json:"session_expires,omitzero"`
}

// String says it in words: "nightly@acme from agent nas-1", or for a service
// "spiffe://backup.example.com/service/restorer for acme".
func (i Identity) String() string {
	if i.Agent == "" {
		return i.SPIFFEID + " for " + i.Tenant
	}
	return i.Login + "@" + i.Tenant + " from agent " + i.Agent
}

func fromIdentity(p *stokerv1.Identity) Identity {
	i := Identity{
		SPIFFEID:          printable(p.GetSpiffeId()),
		CertificateSerial: printable(p.GetCertificateSerial()),
		Tenant:            printable(p.GetTenant()),
		Agent:             printable(p.GetAgent()),
		Login:             printable(p.GetLogin()),
		SessionID:         printable(p.GetSessionId()),
	}
	if t := p.GetCertificateExpireTime(); t.IsValid() {
		i.CertificateExpires = t.AsTime()
	}
	if t := p.GetSessionExpireTime(); t.IsValid() {
		i.SessionExpires = t.AsTime()
	}
	return i
}
