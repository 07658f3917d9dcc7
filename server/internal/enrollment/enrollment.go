package enrollment

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/internal/jointoken"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

// How often certificates are asked for before RATE_LIMITED. A wrong guess at a
// token costs as much as a right one; 256 random bits are not found by
// guessing, so the limit protects the broker's time and the log.
const (
	enrollEvery = 2 * time.Second // for an address, in the long run
	enrollBurst = 20
	renewEvery  = 10 * time.Minute // for an agent, in the long run
	renewBurst  = 6
)

// Authority signs.
type Authority interface {
	SignAgent(key crypto.PublicKey, tenant, agent string, life time.Duration) (*x509.Certificate, error)
	CertificatePEM() []byte
}

// Directory finds tenants and agents.
type Directory interface {
	Sync(ctx context.Context) error
	Tenant(id string) (storage.Tenant, bool)
	AgentByName(tenantID, name string) (storage.Agent, bool)
}

// Tokens finds invitations and marks them used.
type Tokens interface {
	GetJoinToken(ctx context.Context, id string) (storage.JoinToken, error)
	UseJoinToken(ctx context.Context, id string, at time.Time) error
}

// Certificates remembers what was signed.
type Certificates interface {
	RecordCertificate(ctx context.Context, c storage.Certificate) (storage.Certificate, error)
}

// Trail is the audit trail.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Config is what a Desk needs; all of it is required.
type Config struct {
	// Authority is nil where the provider has a PKI of its own: every request
	// is then answered NO_AUTHORITY.
	Authority    Authority
	Directory    Directory
	Tokens       Tokens
	Certificates Certificates
	Trail        Trail
	// Lifetime is how long agents' certificates live.
	Lifetime time.Duration
	Log      *slog.Logger
}

// Desk is where agents get certificates. It is safe for concurrent use.
type Desk struct {
	Config
	addresses, agents *limits
	crowd             *crowd
}

// Certificate is a signed certificate with what is needed to use it.
type Certificate struct {
	PEM, AuthorityPEM []byte
	SPIFFEID, Serial  string
	NotAfter          time.Time
}

// New opens a Desk.
func New(c Config) *Desk {
	d := &Desk{Config: c, addresses: newLimits(enrollEvery, enrollBurst), agents: newLimits(renewEvery, renewBurst)}
	d.crowd = newCrowd(d.summarize)
	return d
}

// Close writes what has been counted and not recorded yet, while ctx lasts.
// Nobody may be served any more.
func (d *Desk) Close(ctx context.Context) { d.crowd.close(ctx) }

// summarize records the refusals of strangers that were only counted.
func (d *Desk) summarize(ctx context.Context, c count) {
	_, err := d.Trail.Append(ctx, storage.AuditRecord{
		Event: string(audit.AgentRefused), Actor: "anonymous", Reason: string(reason.JoinTokenInvalid), Detail: c.detail(),
	}, audit.NoFence)
	if err != nil {
		d.Log.ErrorContext(ctx, "refusals not recorded", "count", c.total, "error", err)
	}
}

// Enroll signs the first certificate of the agent that the token invites. The
// token is used up from the moment that it and the agent were found to be good,
// whatever happens after; a request that cannot be signed is refused before
// that. peer
// is the caller's network address, requestID the call's.
func (d *Desk) Enroll(ctx context.Context, token secret.String, request []byte, peer, requestID string) (Certificate, error) {
	rec := storage.AuditRecord{Event: string(audit.AgentEnrolled), Actor: "anonymous", Peer: peer, RequestID: requestID}
	if err := d.addresses.take(host(peer), "this address"); err != nil {
		return Certificate{}, err
	}
	if d.Authority == nil {
		return Certificate{}, errNoAuthority()
	}
	key, err := pki.ParseRequest(request)
	if err != nil {
		return Certificate{}, err
	}
	invited, err := d.find(ctx, token)
	if err != nil {
		return Certificate{}, d.refused(ctx, rec, audit.AgentRefused, invited, err)
	}
	// Before the token is used up: deleting the agent takes unused tokens along,
	// so that the agent found here is the one that was invited, and no other that
	// was made under its name meanwhile.
	tenant, agent, err := d.party(ctx, invited)
	if err == nil {
		err = d.use(ctx, invited)
	}
	if err != nil {
		return Certificate{}, d.refused(ctx, rec, audit.AgentRefused, invited, err)
	}
	rec.TenantID, rec.Tenant, rec.AgentID, rec.Agent = tenant.ID, tenant.Name, agent.ID, agent.Name
	signed, err := d.sign(ctx, key, rec)
	if reason.Is(err, reason.AgentUnknown) {
		return Certificate{}, d.refused(ctx, rec, audit.AgentRefused, invited, err)
	}
	return signed, err
}

// Renew signs the next certificate of an agent that has one. The old one stays
// valid until it ends.
func (d *Desk) Renew(ctx context.Context, p authn.Principal, request []byte, requestID string) (Certificate, error) {
	if d.Authority == nil {
		return Certificate{}, errNoAuthority()
	}
	if p.Kind != authn.Agent || p.AgentID == "" {
		return Certificate{}, reason.New(reason.CallNotAllowed, "only agents renew their certificates here")
	}
	if err := d.agents.take(p.AgentID, "this agent"); err != nil {
		return Certificate{}, err
	}
	key, err := pki.ParseRequest(request)
	if err != nil {
		return Certificate{}, err
	}
	rec := storage.AuditRecord{
		Event: string(audit.CertificateRenewed), Actor: p.Certificate.ID, Peer: p.Address, RequestID: requestID,
		TenantID: p.TenantID, Tenant: p.Tenant, AgentID: p.AgentID, Agent: p.Agent,
		Detail: map[string]string{previousSerial: p.Certificate.Serial},
	}
	signed, err := d.sign(ctx, key, rec)
	if reason.Is(err, reason.CertificateRevoked) {
		d.record(ctx, rec, audit.CertificateRefused, err)
	}
	return signed, err
}

// previousSerial is the detail that says which certificate was renewed.
const previousSerial = "previous_serial"

// find finds the token's invitation, which is open. Only who has the secret
// learns what became of a token.
func (d *Desk) find(ctx context.Context, text secret.String) (storage.JoinToken, error) {
	token, err := jointoken.Parse(text.Reveal())
	if err != nil {
		return storage.JoinToken{}, reason.New(reason.JoinTokenInvalid, "%s", err)
	}
	invited, err := d.Tokens.GetJoinToken(ctx, token.ID())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return storage.JoinToken{}, err
	}
	if err != nil || !token.Matches(invited.Hash) {
		return storage.JoinToken{}, reason.New(reason.JoinTokenInvalid, "the join token is not one of this broker's; ask for a new one")
	}
	if !invited.UsedAt.IsZero() {
		return invited, errUsed(invited.UsedAt)
	}
	if !time.Now().Before(invited.Expires) {
		return invited, reason.New(reason.JoinTokenExpired, "the join token expired at %s; ask for a new one", invited.Expires.UTC().Format(time.RFC3339))
	}
	return invited, nil
}

// use uses the token up.
func (d *Desk) use(ctx context.Context, invited storage.JoinToken) error {
	now := time.Now()
	err := d.Tokens.UseJoinToken(ctx, invited.ID, now)
	switch {
	case errors.Is(err, storage.ErrConflict):
		return errUsed(now)
	case errors.Is(err, storage.ErrNotFound):
		return errAgentGone()
	}
	return err
}

// party finds whom a token invites, as things stand now.
func (d *Desk) party(ctx context.Context, t storage.JoinToken) (storage.Tenant, storage.Agent, error) {
	// The agent may have been made on another replica a moment ago.
	if err := d.Directory.Sync(ctx); err != nil {
		return storage.Tenant{}, storage.Agent{}, err
	}
	tenant, ok := d.Directory.Tenant(t.TenantID)
	switch {
	case !ok:
		return tenant, storage.Agent{}, reason.New(reason.TenantUnknown, "the tenant does not exist any more; ask the provider")
	case tenant.Disabled:
		return tenant, storage.Agent{}, reason.New(reason.TenantDisabled, "the tenant is disabled; ask the provider")
	}
	agent, ok := d.Directory.AgentByName(t.TenantID, t.AgentName)
	switch {
	case !ok:
		return tenant, agent, errAgentGone()
	case agent.Disabled:
		return tenant, agent, reason.New(reason.AgentDisabled, "the agent is disabled; ask the provider")
	}
	return tenant, agent, nil
}

// sign makes the certificate. It is handed out only after both its audit
// record and its entry in the list of certificates are durable.
func (d *Desk) sign(ctx context.Context, key crypto.PublicKey, rec storage.AuditRecord) (Certificate, error) {
	cert, err := d.Authority.SignAgent(key, rec.Tenant, rec.Agent, d.Lifetime)
	if err != nil {
		return Certificate{}, err
	}
	rec.CertificateSerial, rec.CertificateThumbprint, rec.Expires = pki.Serial(cert), pki.Thumbprint(cert), cert.NotAfter
	if _, err := d.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		return Certificate{}, err
	}
	subject := cert.URIs[0].String()
	if _, err := d.Certificates.RecordCertificate(ctx, storage.Certificate{
		Meta:   storage.Meta{ID: uuid.Must(uuid.NewV7()).String()},
		Serial: rec.CertificateSerial, Thumbprint: rec.CertificateThumbprint, Subject: subject, AgentID: rec.AgentID,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Lineage: rec.Detail[previousSerial],
	}); errors.Is(err, storage.ErrNotFound) {
		return Certificate{}, errAgentGone().Because(err)
	} else if errors.Is(err, storage.ErrConflict) {
		// Revoked at this very moment: what is renewed from it must not outlive it.
		return Certificate{}, reason.New(reason.CertificateRevoked, "the certificate was revoked; enroll again").Because(err)
	} else if err != nil {
		return Certificate{}, err
	}
	return Certificate{
		PEM: pki.EncodeCertificates(cert), AuthorityPEM: d.Authority.CertificatePEM(),
		SPIFFEID: subject, Serial: rec.CertificateSerial, NotAfter: cert.NotAfter,
	}, nil
}

// refused records a refusal and gives it back. A trail that cannot be written
// does not turn a refusal into anything else.
func (d *Desk) refused(ctx context.Context, rec storage.AuditRecord, event audit.Event, invited storage.JoinToken, refusal error) error {
	rec.TenantID, rec.Agent = invited.TenantID, invited.AgentName
	if invited.ID == "" {
		// Anybody can be refused so, as often as there are addresses to ask from.
		if !d.crowd.admit(rec.Peer, string(reason.Of(refusal))) {
			return refusal
		}
	}
	d.record(ctx, rec, event, refusal)
	return refusal
}

// record writes the record of a refusal.
func (d *Desk) record(ctx context.Context, rec storage.AuditRecord, event audit.Event, refusal error) {
	rec.Event, rec.Reason = string(event), string(reason.Of(refusal))
	if _, err := d.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		d.Log.ErrorContext(ctx, "refusal not recorded", "reason", rec.Reason, "peer", rec.Peer, "error", err)
	}
}

func errNoAuthority() error {
	return reason.New(reason.NoAuthority, "this broker has no authority of its own; get the certificate from the provider's PKI")
}

func errAgentGone() *reason.Error {
	return reason.New(reason.AgentUnknown, "the agent does not exist any more; ask for a new token")
}

func errUsed(at time.Time) error {
	return reason.New(reason.JoinTokenUsed, "the join token was used at %s; ask for a new one, and find out by whom", at.UTC().Format(time.RFC3339))
}

// host is what counts as one address: the peer without its port, which changes
// with each connection, and of IPv6 the network of 64 bits, which whoever has
// one address of it has whole.
func host(peer string) string {
	ap, err := netip.ParseAddrPort(peer)
	if err != nil {
		return peer
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return network.String()
}
