package revocation

import (
	"context"
	"errors"
	"fmt"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/storage"
)

// broker is the actor of what keepers do.
const broker = "broker"

// events has the records of changes of state.
var events = map[storage.RevocationState]audit.Event{
	storage.RevocationApplied: audit.RevocationApplied,
	storage.RevocationFailed:  audit.RevocationFailed,
	storage.RevocationExpired: audit.RevocationExpired,
}

// move records that a revocation has come to a state, and stores it. Another
// replica may have done so: then it does nothing. A change of the problem alone
// is recorded for failures.
//
// The record comes first, so that no change of state lacks one. Two replicas
// at the same moment may both leave one.
func (k *keeper) move(ctx context.Context, known storage.Revocation, to storage.RevocationState, problem string) error {
	if known.State == to && known.Problem == problem {
		return nil
	}
	r, err := k.desk.Store.GetRevocation(ctx, known.ID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("read revocation %s: %w", known.ID, err)
	case r.State == to && r.Problem == problem, r.State == storage.RevocationExpired:
		return nil
	}
	if event, ok := events[to]; ok && (r.State != to || to == storage.RevocationFailed) {
		if _, err := k.desk.Trail.Append(ctx, k.record(event, r, problem), audit.NoFence); err != nil {
			return fmt.Errorf("record that revocation %s is %s: %w", r.ID, to, err)
		}
	}
	r.State, r.Problem = to, problem
	_, err = k.desk.Store.UpdateRevocation(ctx, r)
	switch {
	case errors.Is(err, storage.ErrConflict), errors.Is(err, storage.ErrNotFound):
		// Another replica was faster. The next change of the directory shows
		// whether anything is left to do.
		return nil
	case err != nil:
		return fmt.Errorf("store that revocation %s is %s: %w", r.ID, to, err)
	}
	return nil
}

// record says what became of a revocation.
func (k *keeper) record(event audit.Event, r storage.Revocation, problem string) storage.AuditRecord {
	record := storage.AuditRecord{
		Event: string(event), Actor: broker, TenantID: r.TenantID, Account: r.Account, SessionName: r.SessionName,
		Detail: map[string]string{
			"revocation_id": r.ID, "kind": r.TargetKind, "name": r.TargetName,
		},
	}
	if t, ok := k.desk.Directory.Tenant(r.TenantID); ok {
		record.Tenant = t.Name
	}
	switch r.TargetKind {
	case kindUser:
		record.UserID = r.TargetID
	case kindAgent:
		record.AgentID = r.TargetID
	case kindGrant:
		record.GrantID = r.TargetID
	case kindCredential:
		record.CredentialID = r.TargetID
	}
	if problem != "" {
		record.Detail["problem"] = problem
	}
	if k.Mode == Apply && k.standing.Subject != "" {
		record.Detail["subject"] = k.standing.Subject
	}
	return record
}

// failed says of revocations that are not on the account why they are not. Of
// those that are the state stays: nothing was taken away from the account.
func (k *keeper) failed(ctx context.Context, o outcome, why error) error {
	if ctx.Err() != nil {
		return nil
	}
	var problems []error
	for _, r := range o.active {
		if r.State != storage.RevocationApplied {
			problems = append(problems, k.move(ctx, r, storage.RevocationFailed, why.Error()))
		}
	}
	for _, r := range o.over {
		problems = append(problems, k.move(ctx, r, r.State, "it is over, but its denial could not be removed: "+why.Error()))
	}
	return errors.Join(problems...)
}

// local keeps revocations of accounts whose configuration does not say apply.
func (k *keeper) local(ctx context.Context, active, over []storage.Revocation) error {
	var problems []error
	for _, r := range active {
		if r.State == storage.RevocationPending || r.State == storage.RevocationFailed {
			problems = append(problems, k.move(ctx, r, storage.RevocationLocal, ""))
		}
	}
	for _, r := range over {
		problem := ""
		if r.State == storage.RevocationApplied {
			problem = "the account's configuration does not say apply any more: remove the inline policy " + PolicyName + " by hand"
		}
		problems = append(problems, k.move(ctx, r, storage.RevocationExpired, problem))
	}
	return errors.Join(problems...)
}
