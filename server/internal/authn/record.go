package authn

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// refusalTimeout bounds the record of a refusal whose caller has gone.
	refusalTimeout = 10 * time.Second
	// quietTime is how long one certificate's refusals for one reason are not
	// recorded again, where no delay bounds them.
	quietTime = time.Minute
	// maxQuiet is how many such refusals are remembered.
	maxQuiet = 8192
)

// record begins an audit record about a principal.
func record(p Principal, event audit.Event) storage.AuditRecord {
	return storage.AuditRecord{
		Event:                 string(event),
		Actor:                 p.Certificate.ID,
		CertificateSerial:     p.Certificate.Serial,
		CertificateThumbprint: p.Certificate.Thumbprint,
		Peer:                  p.Address,
		RequestID:             p.RequestID,
		TenantID:              p.TenantID,
		Tenant:                p.Tenant,
		UserID:                p.UserID,
		Login:                 p.Login,
		AgentID:               p.AgentID,
		Agent:                 p.Agent,
		SessionID:             p.SessionID,
		Detail:                map[string]string{},
	}
}

// append makes a record durable. Whatever is wrong with the trail, nothing may
// be released without it. A login needs no fence: what it gave is checked again
// at each use.
func (a *Authenticator) append(ctx context.Context, r storage.AuditRecord) error {
	_, err := a.cfg.Trail.Append(ctx, r, audit.NoFence)
	var known *reason.Error
	if err == nil || errors.As(err, &known) || ctx.Err() != nil {
		return err
	}
	return reason.New(reason.AuditUnavailable, "the audit trail cannot be written; wait").Because(err)
}

// refuse makes the record of a refusal durable and gives the error for the
// caller: the refusal, or why it could not be recorded. The record is written
// even if the caller has gone: a guess counts.
func (a *Authenticator) refuse(ctx context.Context, r storage.AuditRecord, method string, refusal error) error {
	r.Reason = string(reason.Of(refusal))
	r.Detail["call"] = method
	if _, ok := rules[method]; !ok {
		r.Detail["call"] = "unknown" // the caller's own text
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	if err := a.append(ctx, r); err != nil {
		return err
	}
	return refusal
}

// refuseQuietly is refuse for what a caller could repeat without end: it
// records a certificate's refusals for one reason once a minute, with the
// number of those that were left out before.
func (a *Authenticator) refuseQuietly(ctx context.Context, r storage.AuditRecord, method string, refusal error) error {
	if reason.Transient(refusal) && !reason.Is(refusal, reason.LoginDelayed) {
		return refusal // the broker's trouble, not the caller's
	}
	leftOut, due := a.quiet.due(r.CertificateThumbprint+" "+string(reason.Of(refusal)), time.Now())
	if !due {
		return refusal
	}
	if leftOut > 0 {
		r.Detail["unrecorded"] = strconv.Itoa(leftOut)
	}
	return a.refuse(ctx, r, method, refusal)
}

// quiet remembers which refusals were recorded a short time ago.
type quiet struct {
	mu   sync.Mutex
	seen map[string]*lately
}

type lately struct {
	recorded time.Time
	leftOut  int
}

// due says whether to record, and how many were left out since the last time.
// Where there is no room to remember, all are recorded.
func (q *quiet) due(key string, now time.Time) (leftOut int, due bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if entry, ok := q.seen[key]; ok {
		if now.Sub(entry.recorded) < quietTime {
			entry.leftOut++
			return 0, false
		}
		leftOut = entry.leftOut
	} else if len(q.seen) >= maxQuiet {
		for other, entry := range q.seen {
			if now.Sub(entry.recorded) >= quietTime {
				delete(q.seen, other)
			}
		}
	}
	if len(q.seen) < maxQuiet {
		q.seen[key] = &lately{recorded: now}
	}
	return leftOut, true
}
