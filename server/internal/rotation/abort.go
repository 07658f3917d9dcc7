package rotation

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// abort goes back to the old key, and deletes the new one.
func (w *work) abort(ctx context.Context) error {
	if w.foreign {
		return w.giveUp(ctx)
	}
	switch w.state.phase {
	case creating:
		// What is not ours stays, and is in nobody's way here.
		if _, err := w.clearLeftovers(ctx); err != nil {
			return err
		}
		return w.rest(ctx)
	case switched, disabled:
		// It may have been disabled without that having been stored.
		if err := w.account.IAM.SetActive(ctx, w.user, w.state.old, true); err != nil {
			return w.iamFailed(err)
		}
		if err := w.switchBack(ctx); err != nil {
			return err
		}
	case created:
		next := w.state
		next.phase = reverting
		if err := w.save(ctx, next); err != nil {
			return err
		}
	}
	return w.revert(ctx)
}

// switchBack has every replica use the old key again, once STS knows it.
func (w *work) switchBack(ctx context.Context) error {
	old := w.state.before
	if old == nil || old.ID != w.state.old {
		base, err := w.account.Keys.base.Retrieve(ctx)
		if err != nil || base.AccessKeyID != w.state.old {
			return blocked("the old key %s is not configured any more: it cannot be gone back to; let the rotation go on instead", w.state.old)
		}
		if err := w.verify(ctx, base); err != nil {
			return err
		}
	} else if err := w.verify(ctx, old.credentials()); err != nil {
		return err
	}
	turn, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	next := w.state // not before: verifying may have renewed the claim
	next.phase, next.current, next.before, next.turn = reverting, w.state.before, nil, turn.String()
	return w.save(ctx, next)
}

// revert deletes the new key, which nobody uses any more.
func (w *work) revert(ctx context.Context) error {
	if w.state.turn != "" {
		if err := w.adopted(ctx); err != nil {
			return err
		}
	}
	if w.state.next != nil {
		if err := w.account.IAM.Delete(ctx, w.user, w.state.next.ID); err != nil {
			return w.iamFailed(err)
		}
	}
	return w.rest(ctx)
}

// giveUp ends a rotation of a user whose keys cannot be reached any more. Whoever
// still has that user's old key configured goes on with what replaced it.
func (w *work) giveUp(ctx context.Context) error {
	next := w.state
	left := next.old
	if next.next != nil {
		left += " and " + next.next.ID
	}
	if next.replaced(next.old) {
		next.retired = append(slices.Clone(w.state.retired), next.old)
	}
	next.phase, next.next, next.before, next.old, next.user, next.turn = idle, nil, nil, "", "", ""
	user := w.state.user
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.did(ctx, Reverted, "", fmt.Sprintf("the rotation was given up; the keys of %s were left as they are: look after %s", user, left))
}

// rest ends a rotation that was undone.
func (w *work) rest(ctx context.Context) error {
	next := w.state
	undone := ""
	if next.next != nil {
		undone = next.next.ID
		next.retired = append(slices.Clone(w.state.retired), undone)
	}
	next.phase, next.next, next.before, next.old, next.user, next.turn = idle, nil, nil, "", "", ""
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.did(ctx, Reverted, undone, "the rotation was undone; the key of before is in use")
}
