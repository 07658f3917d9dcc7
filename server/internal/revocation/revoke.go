package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// The kinds of party, as storage.Revocation.TargetKind has them.
const (
	kindTenant      = "tenant"
	kindUser        = "user"
	kindAgent       = "agent"
	kindGrant       = "grant"
	kindCredential  = "credential"
	kindCertificate = "certificate"
)

const (
	// syncPatience is how long a call waits for the directory to catch up.
	syncPatience = 5 * time.Second
	// patience bounds one step of a revocation once its record is begun.
	patience = 20 * time.Second
	// attempts is how often disabling is tried again because somebody else
	// changed the party in between.
	attempts = 5
)

// Directory finds the parties. Sync makes its answers at least as new as every
// change that was committed before the call.
type Directory interface {
	Sync(ctx context.Context) error
	Tenant(id string) (storage.Tenant, bool)
	User(id string) (storage.User, bool)
	Agent(id string) (storage.Agent, bool)
	Grant(id string) (storage.Grant, bool)
	Location(id string) (storage.Location, bool)
	GrantsOf(tenantID string) []storage.Grant
	GrantsFor(tenantID, userID string) []storage.Grant
	Revocations() []storage.Revocation
}

// Store is what is read and written.
type Store interface {
	GetTenant(ctx context.Context, id string) (storage.Tenant, error)
	UpdateTenant(ctx context.Context, t storage.Tenant) (storage.Tenant, error)
	GetUser(ctx context.Context, id string) (storage.User, error)
	UpdateUser(ctx context.Context, u storage.User) (storage.User, error)
	GetAgent(ctx context.Context, id string) (storage.Agent, error)
	UpdateAgent(ctx context.Context, a storage.Agent) (storage.Agent, error)
	GetGrant(ctx context.Context, id string) (storage.Grant, error)
	UpdateGrant(ctx context.Context, g storage.Grant) (storage.Grant, error)
	RevokeCertificate(ctx context.Context, c storage.Certificate) (storage.Certificate, error)
	CreateRevocation(ctx context.Context, r storage.Revocation) (storage.Revocation, error)
	GetRevocation(ctx context.Context, id string) (storage.Revocation, error)
	UpdateRevocation(ctx context.Context, r storage.Revocation) (storage.Revocation, error)
	FindIssue(ctx context.Context, credentialID string) (storage.AuditRecord, error)
	ListAudit(ctx context.Context, f storage.AuditFilter, after *storage.AuditCursor, limit int) ([]storage.AuditRecord, error)
}

// Trail makes a record durable; after an error what it tells of must not
// happen.
type Trail interface {
	Append(ctx context.Context, rec storage.AuditRecord, fence int64) (storage.AuditRecord, error)
}

// Mode is what an account does about credentials that were already issued.
type Mode string

// The modes, as the configuration spells them.
const (
	// None lets them run out.
	None Mode = "none"
	// Print logs the policy that would deny them.
	Print Mode = "print"
	// Apply keeps the policy on the account.
	Apply Mode = "apply"
)

// Account is one account of the configuration.
type Account struct {
	// Mode is None if it is empty.
	Mode Mode
	// MaxLifetime is the longest credential that the account issues; required.
	MaxLifetime time.Duration
	// Limit is the space for the policy in Print mode, UserLimit or RoleLimit.
	Limit int
	// IAM keeps the policy in Apply mode, and is required there.
	IAM IAM
}

// Config is what a Desk needs. Fields without a default are required.
type Config struct {
	Directory Directory
	Store     Store
	Trail     Trail
	// Accounts has every account that a location may name.
	Accounts map[string]Account
	Log      *slog.Logger
	// Now is the broker's clock. Default time.Now.
	Now func() time.Time
}

// Desk takes revocations from operators, and keeps them on the accounts. Its
// methods are safe for concurrent use.
type Desk struct {
	Config
	keepers []*keeper
}

// New makes a desk. Revocations are taken at once, and kept with Run.
func New(c Config) (*Desk, error) {
	if c.Directory == nil || c.Store == nil || c.Trail == nil || c.Log == nil {
		return nil, errors.New("revocation: directory, store, trail and log are all required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	d := &Desk{Config: c}
	var problems []error
	for name, a := range c.Accounts {
		switch {
		case a.MaxLifetime <= 0:
			problems = append(problems, fmt.Errorf("revocation: account %q: the longest lifetime is missing", name))
		case a.Mode == Apply && a.IAM == nil:
			problems = append(problems, fmt.Errorf("revocation: account %q: mode %s needs a way to IAM", name, Apply))
		case a.Mode == Print && a.Limit <= 0:
			problems = append(problems, fmt.Errorf("revocation: account %q: mode %s needs a limit", name, Print))
		case !slices.Contains([]Mode{"", None, Print, Apply}, a.Mode):
			problems = append(problems, fmt.Errorf("revocation: account %q: mode %q is none of %s, %s, %s", name, a.Mode, None, Print, Apply))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	d.open()
	return d, nil
}

// Target names a party to cut off.
type Target struct {
	// Kind is tenant, user, agent, grant, credential or certificate.
	Kind string
	// ID is the entity's or credential's id; of a certificate it is the serial
	// number in lower-case hexadecimal.
	ID string
	// Name is what the operator typed, for people.
	Name string
}

// Operator is who revokes, for the audit trail.
type Operator struct {
	// Name is for people, Identity the SPIFFE ID.
	Name, Identity                           string
	CertificateSerial, CertificateThumbprint string
	// Peer is the network address.
	Peer, RequestID string
}

// Plan gives the revocations that Revoke would make, one for each account that
// may have issued to the party, and does nothing.
func (d *Desk) Plan(ctx context.Context, target Target, why string, by Operator) ([]storage.Revocation, error) {
	p, err := d.find(ctx, target)
	if err != nil {
		return nil, err
	}
	return d.rows(ctx, p, why, by)
}

// Revoke cuts the party off. When it returns without an error no replica
// issues to the party any more, and this one has told its streams. The
// revocations say how far each account is; the keepers take them further.
//
// The party is refused first, so that nothing new is issued while the
// revocations are stored. After an error that may have happened already:
// revoking again is safe, and needed. It is no error where the party is
// refused already: then what was issued until now is denied.
func (d *Desk) Revoke(ctx context.Context, target Target, why string, by Operator) ([]storage.Revocation, error) {
	p, err := d.find(ctx, target)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Once begun, the caller's hanging up stops nothing.
	ctx = context.WithoutCancel(ctx)
	if p.refuse != nil {
		if err := p.refuse(ctx, why, by); err != nil {
			return nil, err
		}
	}
	rows, err := d.rows(ctx, p, why, by)
	if err != nil {
		return nil, err
	}
	for i, r := range rows {
		if rows[i], err = d.store(ctx, p, r, by); err != nil {
			return nil, err
		}
	}
	if err := d.sync(ctx); err != nil {
		return nil, err
	}
	for _, r := range rows {
		d.kick(r.Account, 0)
	}
	return rows, nil
}

// sync does not wait for ever for a caller who set no deadline.
func (d *Desk) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	return d.Directory.Sync(ctx)
}

// rows makes the revocations of a party as of now, in order of account.
func (d *Desk) rows(ctx context.Context, p party, why string, by Operator) ([]storage.Revocation, error) {
	now := d.Now().UTC()
	accounts, err := p.accounts(ctx, now)
	if err != nil {
		return nil, err
	}
	var rows []storage.Revocation
	for account, until := range accounts {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an id: %w", err)
		}
		state := storage.RevocationLocal
		if d.Accounts[account].Mode == Apply {
			state = storage.RevocationPending
		}
		rows = append(rows, storage.Revocation{
			Meta:       storage.Meta{ID: id.String()},
			TargetKind: p.Kind, TargetID: p.ID, TargetName: p.Name, TenantID: p.tenantID,
			Account: account, SessionName: p.sessionName, Before: now, Until: until,
			State: state, Reason: why, Operator: by.Name,
		})
	}
	slices.SortFunc(rows, func(a, b storage.Revocation) int { return strings.Compare(a.Account, b.Account) })
	return rows, nil
}

// store records a revocation and stores it.
func (d *Desk) store(ctx context.Context, p party, r storage.Revocation, by Operator) (stored storage.Revocation, err error) {
	record := by.record(audit.RevocationCreated)
	record.Reason = string(reason.CredentialRevoked)
	p.about(&record)
	record.Account, record.SessionName = r.Account, r.SessionName
	record.Detail["kind"], record.Detail["name"], record.Detail["reason"] = r.TargetKind, r.TargetName, r.Reason
	record.Detail["revocation_id"] = r.ID
	err = d.carryOut(ctx, record, func(ctx context.Context) error {
		stored, err = d.Store.CreateRevocation(ctx, r)
		return err
	})
	return stored, err
}

// record begins a record of what the operator does.
func (o Operator) record(event audit.Event) storage.AuditRecord {
	return storage.AuditRecord{
		Event: string(event), Actor: o.Identity,
		CertificateSerial: o.CertificateSerial, CertificateThumbprint: o.CertificateThumbprint,
		Peer: o.Peer, RequestID: o.RequestID, Detail: map[string]string{},
	}
}

// carryOut records what is about to be done and does it. The record comes
// first: there is no change without one. The price is a record of a change
// that then did not happen; it is followed by a second one that says so, with
// the detail "outcome": failed, or unknown where the answer to the commit was
// lost.
func (d *Desk) carryOut(ctx context.Context, record storage.AuditRecord, write func(context.Context) error) error {
	if record.Actor == "" {
		// Only a broker that is wired wrong gets here without a caller.
		return reason.New(reason.Internal, "a revocation without an operator")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := d.Trail.Append(ctx, record, audit.NoFence); err != nil {
		return err
	}
	err := write(ctx)
	if err != nil {
		d.recordFailure(ctx, record, err)
	}
	return err
}

func (d *Desk) recordFailure(ctx context.Context, record storage.AuditRecord, failure error) {
	outcome := "failed"
	if errors.Is(failure, storage.ErrInDoubt) {
		outcome = "unknown"
	}
	why := reason.Of(failure)
	switch {
	case errors.Is(failure, storage.ErrUnavailable):
		why = reason.StorageUnavailable
	case errors.Is(failure, storage.ErrConflict):
		why = reason.EtagMismatch
	case errors.Is(failure, storage.ErrNotFound):
		why = reason.NotFound
	}
	record.Reason = string(why)
	record.Detail = map[string]string{"kind": record.Detail["kind"], "name": record.Detail["name"], "outcome": outcome}
	// The change may have used up its time; saying so gets its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncPatience)
	defer cancel()
	if _, err := d.Trail.Append(ctx, record, audit.NoFence); err != nil {
		d.Log.ErrorContext(ctx, "a change that the audit trail has did not take place, and the trail cannot be told",
			"event", record.Event, "kind", record.Detail["kind"], "name", record.Detail["name"], "outcome", outcome,
			"request_id", record.RequestID, "failure", failure, "error", err)
	}
}
