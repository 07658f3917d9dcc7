package lease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// The keys of AuditRecord.Detail that this package writes and reads.
const (
	// detailIssuedAt is when the broker asked STS, which revocations compare
	// with.
	detailIssuedAt = "issued_at"
	// detailLocation is what an agent was told about where its bucket is.
	detailLocation = "location"
	// detailLifetime is how long it lives, whatever clock one goes by.
	detailLifetime = "lifetime"
	detailPacked   = "packed_policy_percent"
	detailCode     = "s3_error_code"
	// DetailPurpose is what a service acts for.
	DetailPurpose = "purpose"
)

// appends bounds how often one credential is recorded anew because the feed
// moved on meanwhile.
const appends = 8

// record makes the credential durable in the audit trail, as of an
// entitlement that holds at the moment of the commit. errMoot says that there
// is none any more.
func (m *Manager) record(ctx context.Context, l *lease, p *plan, h *holding) error {
	rec := base(p.holder, l.key.grant)
	rec.Event = string(audit.CredentialIssued)
	if p.renewal {
		rec.Event = string(audit.CredentialRenewed)
	}
	rec.Grant, rec.Account = h.Grant, h.account
	rec.CredentialID, rec.AccessKeyID, rec.SessionName = h.ID, h.AccessKeyID, h.SessionName
	rec.PolicyHash, rec.Expires = h.PolicyHash, h.Expires
	detail(&rec, detailIssuedAt, h.stamped.UTC().Format(time.RFC3339Nano))
	detail(&rec, detailLocation, describe(h.Location))
	detail(&rec, detailLifetime, h.life.String())
	if h.packed > 0 {
		detail(&rec, detailPacked, strconv.Itoa(h.packed))
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.AuditTimeout)
	defer cancel()
	for range appends {
		// The entitlement that the call was made under is older than the call.
		ent, err := m.entitle(p.holder, l.key.grant)
		switch {
		case err != nil && reason.Transient(err):
			return err
		case err != nil, !h.under(ent):
			return errMoot
		}
		_, failure := m.cfg.Trail.Append(ctx, rec, ent.Fence)
		if failure == nil {
			return nil
		}
		if !errors.Is(failure, audit.ErrStale) {
			return auditTrouble(failure)
		}
		if failure := m.cfg.Authority.Sync(ctx); failure != nil {
			return reason.New(reason.StorageUnavailable, "the broker cannot see the latest changes; it tries again").Because(failure)
		}
	}
	return reason.New(reason.StorageUnavailable, "changes come faster than a credential can be recorded; the broker tries again")
}

// auditTrouble gives a failure of the trail its reason.
func auditTrouble(err error) *reason.Error {
	var e *reason.Error
	if errors.As(err, &e) && reason.Transient(e) {
		return e
	}
	return reason.New(reason.AuditUnavailable, "the audit trail cannot be written, so nothing is issued; the broker tries again").Because(err)
}

// base is what every record about a holder says.
func base(h Holder, grantID string) storage.AuditRecord {
	rec := storage.AuditRecord{
		Actor:             h.Actor,
		CertificateSerial: h.Certificate.Serial, CertificateThumbprint: h.Certificate.Thumbprint,
		Peer:     h.Peer,
		TenantID: h.TenantID, Tenant: h.Tenant,
		UserID: h.UserID, Login: h.Login,
		AgentID: h.AgentID, Agent: h.Agent,
		GrantID: grantID, SessionID: h.SessionID,
	}
	if h.Purpose != "" {
		detail(&rec, DetailPurpose, h.Purpose)
	}
	return rec
}

// detail adds to what else a record says.
func detail(rec *storage.AuditRecord, key, value string) {
	if rec.Detail == nil {
		rec.Detail = make(map[string]string, 5)
	}
	rec.Detail[key] = value
}

func refusal(h Holder, grantID string, why *reason.Error) storage.AuditRecord {
	rec := base(h, grantID)
	rec.Event, rec.Reason = string(audit.CredentialRefused), string(why.Reason)
	return rec
}

// refuse records a refusal and then tells the subscriber, unless that has
// become untrue in between. The lease is locked.
func (m *Manager) refuse(l *lease, s *Subscription, why *reason.Error) {
	m.count.refused.Add(1)
	rec := refusal(s.holder, l.key.grant, why)
	rec.Grant = l.name
	wasShort := s.short
	ok := m.records.do(func() {
		m.write(rec)
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.closed || s.short != wasShort || !wasShort && s.refused != why {
			return
		}
		m.tellRefusal(l, s, why)
	})
	if !ok {
		m.unwritten(rec, errors.New("too many records wait, or the broker is stopping"))
		m.tellRefusal(l, s, why)
	}
}

func (m *Manager) tellRefusal(l *lease, s *Subscription, why *reason.Error) {
	p := &Problem{GrantID: l.key.grant, Grant: l.name, Err: why}
	if s.have != nil {
		p.GoodUntil = s.have.Expires
	}
	m.deliver(s, Event{Problem: p})
}

// note has a record written that nobody waits for.
func (m *Manager) note(rec storage.AuditRecord) {
	if !m.records.do(func() { m.write(rec) }) {
		m.unwritten(rec, errors.New("too many records wait, or the broker is stopping"))
	}
}

// recordRejection records that S3 refused a credential.
func (m *Manager) recordRejection(l *lease, s *Subscription, code string) {
	rec := base(s.holder, l.key.grant)
	rec.Event = string(audit.CredentialRejected)
	l.describeCurrent(&rec)
	if code != "" {
		detail(&rec, detailCode, strings.ToValidUTF8(code, ""))
	}
	m.note(rec)
}

// recordLoss records that a subscriber was told to stop using what it had.
func (m *Manager) recordLoss(l *lease, s *Subscription, why *reason.Error) {
	rec := base(s.holder, l.key.grant)
	rec.Event, rec.Reason = string(audit.CredentialRevoked), string(why.Reason)
	l.describeCurrent(&rec)
	m.note(rec)
}

// describeCurrent fills in the credential in force.
func (l *lease) describeCurrent(rec *storage.AuditRecord) {
	rec.Grant = l.name
	if h := l.cur; h != nil {
		rec.Account, rec.CredentialID, rec.AccessKeyID = h.account, h.ID, h.AccessKeyID
		rec.SessionName, rec.PolicyHash, rec.Expires = h.SessionName, h.PolicyHash, h.Expires
	}
}

// write records what has happened whatever the trail says. A failure is no
// reason to keep quiet towards the agent, but the log must have it.
func (m *Manager) write(rec storage.AuditRecord) { m.writeFor(m.ctx, rec) }

// writeFor is write while ctx lasts.
func (m *Manager) writeFor(ctx context.Context, rec storage.AuditRecord) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.AuditTimeout)
	defer cancel()
	if _, err := m.cfg.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		m.unwritten(rec, err)
	}
}

func (m *Manager) unwritten(rec storage.AuditRecord, err error) {
	m.count.unwritten.Add(1)
	m.cfg.Log.Error("an audit record could not be written", "event", rec.Event, "reason", rec.Reason,
		"tenant", rec.Tenant, "login", rec.Login, "agent", rec.Agent, "grant", rec.GrantID, "credential", rec.CredentialID, "error", err)
}

// describe names what an agent is told of a location, in one text.
func describe(l storage.Location) string {
	return strings.Join([]string{l.Bucket, l.Region, l.Endpoint, l.KMSKeyARN}, "|")
}
