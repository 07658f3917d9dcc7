package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/awsiam"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// Step is one thing that a rotation has done.
type Step string

// The steps, in their order. Reverted is the last of one that is undone.
const (
	Planned  Step = "planned"
	Created  Step = "created"
	Verified Step = "verified"
	Switched Step = "switched"
	Adopted  Step = "adopted"
	Disabled Step = "disabled"
	Deleted  Step = "deleted"
	Reverted Step = "reverted"
)

// Progress tells of one step.
type Progress struct {
	Step Step
	// AccessKeyID is the key that the step was done to.
	AccessKeyID string
	// Message is one sentence for people.
	Message string
}

// Account is one whose key can be rotated.
type Account struct {
	Keys *Keys
	IAM  IAM
	// Caller asks STS whose a key is, and gives the ARN.
	Caller func(ctx context.Context, keys aws.Credentials) (string, error)
}

// Request is what is asked for.
type Request struct {
	Account string
	// Abort undoes a rotation that is under way.
	Abort bool
	// DryRun says what would be done, and does nothing.
	DryRun bool
	// Ignored are the names of replicas that are known not to run any more.
	Ignored []string
	// Record says who asks: those of the steps begin with it.
	Record storage.AuditRecord
}

// Config is what a Desk needs. Fields without a default are required.
type Config struct {
	Accounts map[string]Account
	Store    Store
	Sealer   Sealer
	Trail    Trail
	// Brokers lists the replicas that run, by the names of their chains in the
	// audit trail. Writer is this one's.
	Brokers func(ctx context.Context) ([]string, error)
	Writer  string
	Log     *slog.Logger
	// Claim is how long a run may take from one step to the next before another
	// may take over. Default 1m.
	Claim time.Duration
	// Verifications is how many times in a row a new key must work, Interval
	// how far apart. Defaults 3 and 1s. Patience is how long it may take to work
	// for the first time, and how long replicas may take to switch. Default 45s.
	Verifications      int
	Interval, Patience time.Duration
	// Settle is how long the old key stays disabled before it is deleted, so
	// that whoever still used it is found out while it can be enabled again.
	// Default 10s.
	Settle time.Duration
}

// Desk is where rotations are asked for. It is safe for concurrent use.
type Desk struct{ Config }

// New opens a Desk.
func New(c Config) *Desk {
	if c.Claim == 0 {
		c.Claim = time.Minute
	}
	if c.Verifications == 0 {
		c.Verifications = 3
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Patience == 0 {
		c.Patience = 45 * time.Second
	}
	if c.Settle == 0 {
		c.Settle = 10 * time.Second
	}
	return &Desk{c}
}

// blocked is a refusal that says what to do.
func blocked(format string, args ...any) *reason.Error {
	return reason.New(reason.KeyRotationBlocked, format, args...)
}

// Rotate replaces the account's key, or takes up a rotation where one was cut
// off, and tells of each step. When it returns an error, what was done stays
// done and is stored: the same call goes on from there. NOT_FOUND: there is no
// such account. KEY_ROTATION_BLOCKED says what is in the way.
func (d *Desk) Rotate(ctx context.Context, r Request, tell func(Progress) error) error {
	account, ok := d.Accounts[r.Account]
	if !ok {
		return reason.New(reason.NotFound, "there is no account %.63q; the broker has %s", r.Account, strings.Join(slices.Sorted(maps.Keys(d.Accounts)), ", ")).
			With("field", "account")
	}
	w := &work{desk: d, account: account, request: r, tell: tell}
	if err := w.begin(ctx); err != nil {
		return err
	}
	if r.DryRun {
		return tell(w.plan())
	}
	if err := w.claim(ctx); err != nil {
		return err
	}
	defer w.release(ctx)
	if r.Abort {
		return w.abort(ctx)
	}
	return w.forward(ctx)
}

// work is one run.
type work struct {
	desk    *Desk
	account Account
	request Request
	tell    func(Progress) error
	state   state
	user    string
	arn     string
	// foreign: the rotation under way is of another user's key.
	foreign bool
	// now is the key in use at the beginning.
	now aws.Credentials
}

// begin finds out how things stand.
func (w *work) begin(ctx context.Context) (err error) {
	if err := w.account.Keys.Refresh(ctx); err != nil {
		return reason.New(reason.StorageUnavailable, "how the account's keys stand cannot be read; wait").Because(err)
	}
	if w.state, err = load(ctx, w.desk.Store, w.desk.Sealer, w.request.Account); err != nil {
		return reason.New(reason.StorageUnavailable, "how the account's keys stand cannot be read; wait").Because(err)
	}
	if w.request.Abort && w.state.phase == idle {
		return blocked("no rotation of this account's key is under way: there is nothing to abort")
	}
	w.now, err = w.account.Keys.Retrieve(ctx)
	if err != nil {
		return blocked("the account's keys cannot be had: see what the broker logged at its start").Because(err)
	}
	if w.now.SessionToken != "" || strings.HasPrefix(w.now.AccessKeyID, "ASIA") {
		return blocked("the account uses temporary keys (%s), which AWS replaces by itself: there is no key to rotate", w.now.AccessKeyID)
	}
	if w.arn, err = w.account.Caller(ctx, w.now); err != nil {
		return blocked("whose the key %s is cannot be found out: %s", w.now.AccessKeyID, err)
	}
	parsed, err := arn.Parse(w.arn)
	name, ok := awsiam.Name("user", parsed)
	if err != nil || !ok {
		return blocked("the key %s is that of %s, which is no IAM user: only an IAM user's key can be rotated", w.now.AccessKeyID, w.arn)
	}
	// IAM would say of that user's keys that there are none.
	if w.foreign = w.state.phase != idle && w.state.user != w.arn; w.foreign && !w.request.Abort {
		return blocked("a rotation of a key of %s is under way, and the key %s that is configured now is that of %s: configure one of that user's again, or abort the rotation, which then leaves that user's keys as they are",
			w.state.user, w.now.AccessKeyID, w.arn)
	}
	w.user = name
	return nil
}

// plan says what would be done.
func (w *work) plan() Progress {
	what := map[phase]string{
		idle:      "a new key would be created, verified and taken into use, and this one disabled and deleted",
		creating:  "a rotation was cut off while it created a key: one that it left would be deleted, and another created",
		created:   "a new key is stored: it would be verified and taken into use",
		switched:  "the new key is in use: when all replicas use it the old one would be disabled and deleted",
		disabled:  "the old key is disabled: it would be deleted",
		reverting: "a rotation is being undone: its key would be deleted",
	}[w.state.phase]
	if w.request.Abort {
		what = "the rotation that is under way would be undone"
	}
	return Progress{Planned, w.now.AccessKeyID, what + " (" + w.arn + ")"}
}

// claim takes the work over, if nobody is at it.
func (w *work) claim(ctx context.Context) error {
	if now := time.Now(); now.Before(w.state.until) {
		return blocked("the broker %s is at it since a moment ago: wait for it, or until %s, when it can be taken over",
			w.state.holder, w.state.until.UTC().Format(time.RFC3339)).After(w.state.until.Sub(now))
	}
	run, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	next := w.state
	next.run, next.holder = run.String(), w.desk.Writer
	return w.save(ctx, next)
}

// save stores a step, and with it holds the claim.
func (w *work) save(ctx context.Context, next state) error {
	next.until = time.Now().Add(w.desk.Claim).UTC()
	before := w.state.id
	stored, err := save(ctx, w.desk.Store, w.desk.Sealer, w.request.Account, next)
	switch {
	case errors.Is(err, errRaced):
		return blocked("somebody else works on this account's key at this moment: wait").After(w.desk.Claim)
	case err != nil:
		return reason.New(reason.StorageUnavailable, "the step could not be stored; run it again").Because(err)
	}
	w.state = stored
	if before != "" {
		// What it holds has been carried over. If it stays it is sealed and dead.
		if err := w.desk.Store.DeleteKey(ctx, before); err != nil && !errors.Is(err, storage.ErrNotFound) {
			w.desk.Log.WarnContext(ctx, "an old state of the account's key was not deleted", "account", w.request.Account, "error", err)
		}
	}
	return w.account.Keys.Refresh(ctx)
}

// hold renews the claim, ahead of something that takes time, if half of it is
// over.
func (w *work) hold(ctx context.Context) error {
	if time.Until(w.state.until) > w.desk.Claim/2 {
		return nil
	}
	return w.save(ctx, w.state)
}

// releaseTimeout bounds giving the claim back.
const releaseTimeout = 15 * time.Second

// release gives the claim back, so that the next run need not wait for its end.
func (w *work) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	next := w.state
	next.until = time.Time{}
	before := w.state.id
	if _, err := save(ctx, w.desk.Store, w.desk.Sealer, w.request.Account, next); err != nil {
		w.desk.Log.WarnContext(ctx, "the claim on the account's key was not given back: it runs out by itself", "account", w.request.Account, "error", err)
		return
	}
	if err := w.desk.Store.DeleteKey(ctx, before); err != nil && !errors.Is(err, storage.ErrNotFound) {
		w.desk.Log.WarnContext(ctx, "an old state of the account's key was not deleted", "account", w.request.Account, "error", err)
	}
}

// did records a step and tells of it.
func (w *work) did(ctx context.Context, step Step, id, message string) error {
	rec := w.request.Record
	rec.Event, rec.Account, rec.AccessKeyID = string(audit.AccountKeyRotated), w.request.Account, id
	rec.Detail = map[string]string{"step": string(step), "user": w.arn}
	if _, err := w.desk.Trail.Append(ctx, rec, audit.NoFence); err != nil {
		return err
	}
	w.desk.Log.InfoContext(ctx, "account key", "account", w.request.Account, "step", string(step), "access_key_id", id)
	return w.tell(Progress{step, id, message})
}

// forward goes from wherever the rotation stands to its end.
func (w *work) forward(ctx context.Context) error {
	for {
		var err error
		switch w.state.phase {
		case idle:
			err = w.start(ctx)
		case creating:
			err = w.create(ctx)
		case created:
			err = w.switchOver(ctx)
		case switched:
			err = w.disable(ctx)
		case disabled:
			return w.finish(ctx)
		case reverting:
			return w.revert(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// start looks whether there is room for another key, and stores the intent.
func (w *work) start(ctx context.Context) error {
	keys, err := w.account.IAM.List(ctx, w.user)
	if err != nil {
		return w.iamFailed(err)
	}
	if len(keys) > 1 {
		return w.twoKeys(keys)
	}
	next := w.state
	next.phase, next.old, next.user, next.began = creating, w.now.AccessKeyID, w.arn, time.Now().UTC()
	next.next, next.before, next.turn = nil, nil, ""
	return w.save(ctx, next)
}

func (w *work) iamFailed(err error) error {
	return blocked("%s. What was done is stored: put it right (docs/aws.md has the policy that is needed) and run it again", err)
}

// twoKeys says which key is in the way.
func (w *work) twoKeys(keys []KeyInfo) error {
	for _, k := range keys {
		if k.ID != w.state.old && k.ID != w.now.AccessKeyID {
			status := "inactive"
			if k.Active {
				status = "active"
			}
			return blocked("%s has two access keys, and IAM allows no third: delete the other one, %s (%s, created %s), if nobody uses it, and run this again",
				w.arn, k.ID, status, k.Created.UTC().Format(time.DateOnly))
		}
	}
	return blocked("%s has two access keys, and IAM allows no third: delete the one that nobody uses, and run this again", w.arn)
}

// create makes the new key. A key that an earlier attempt left, and whose
// secret is lost, goes first.
func (w *work) create(ctx context.Context) error {
	if w.state.old != w.now.AccessKeyID {
		// Another key was configured since the rotation began: that is the one
		// to replace.
		next := w.state
		next.old = w.now.AccessKeyID
		if err := w.save(ctx, next); err != nil {
			return err
		}
	}
	theirs, err := w.clearLeftovers(ctx)
	if err != nil {
		return err
	}
	if len(theirs) > 0 {
		return w.twoKeys(theirs)
	}
	// Nobody takes over while the key is made and not yet stored.
	if err := w.hold(ctx); err != nil {
		return err
	}
	id, value, err := w.account.IAM.Create(ctx, w.user)
	if errors.Is(err, ErrTwoKeys) {
		keys, listErr := w.account.IAM.List(ctx, w.user)
		if listErr != nil {
			return w.iamFailed(listErr)
		}
		return w.twoKeys(keys)
	}
	if err != nil {
		return w.iamFailed(err)
	}
	next := w.state
	next.phase, next.next = created, &accessKey{id, value}
	if err := w.save(ctx, next); err != nil {
		// Whether it was stored is not known. If it was, the next run uses it; if
		// not, its secret is lost, and the next run deletes it.
		return err
	}
	return w.did(ctx, Created, id, "the new key was created and stored, sealed")
}

// clearLeftovers deletes the key that a run created and could not store, and
// gives those that somebody else made. A key is ours only if it was made since
// the rotation began and has never been used. The one in use is not, whatever IAM
// says: it tells of uses late.
func (w *work) clearLeftovers(ctx context.Context) (theirs []KeyInfo, err error) {
	keys, err := w.account.IAM.List(ctx, w.user)
	if err != nil {
		return nil, w.iamFailed(err)
	}
	for _, k := range keys {
		if k.ID == w.state.old || k.ID == w.now.AccessKeyID {
			continue
		}
		used, err := w.account.IAM.Used(ctx, k.ID)
		switch {
		case err != nil:
			return nil, w.iamFailed(err)
		case used, k.Created.Before(w.state.began.Add(-time.Minute)):
			theirs = append(theirs, k)
			continue
		}
		if err := w.account.IAM.Delete(ctx, w.user, k.ID); err != nil {
			return nil, w.iamFailed(err)
		}
		if err := w.did(ctx, Deleted, k.ID, "a key that an earlier attempt had created and not stored was deleted"); err != nil {
			return nil, err
		}
	}
	return theirs, nil
}

// switchOver verifies the new key and has every replica use it.
func (w *work) switchOver(ctx context.Context) error {
	if err := w.verify(ctx, w.state.next.credentials()); err != nil {
		return err
	}
	if err := w.did(ctx, Verified, w.state.next.ID, "STS knows the new key as the same user's"); err != nil {
		return err
	}
	turn, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	next := w.state
	next.phase, next.before, next.current, next.turn = switched, w.state.current, w.state.next, turn.String()
	next.old = w.now.AccessKeyID // which may have been configured since the rotation began
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.did(ctx, Switched, w.state.current.ID, "the new key is in use; the old one still works")
}

// verify waits until STS knows the key as the user's, several times in a row:
// a new key is not known everywhere at once.
func (w *work) verify(ctx context.Context, key aws.Credentials) error {
	deadline := time.Now().Add(w.desk.Patience)
	for good := 0; good < w.desk.Verifications; {
		if err := w.hold(ctx); err != nil {
			return err
		}
		who, err := w.account.Caller(ctx, key)
		switch {
		case err == nil && who == w.arn:
			good++
		case err == nil:
			return blocked("the key %s is that of %s, not of %s: abort the rotation", key.AccessKeyID, who, w.arn)
		case time.Now().After(deadline):
			return blocked("STS does not take the key %s: %s. The other one stays in use; run this again, or abort it", key.AccessKeyID, err)
		default:
			good = 0
		}
		if err := pause(ctx, w.desk.Interval); err != nil {
			return err
		}
	}
	return nil
}

// adopted waits until every replica that runs uses the key of the turn.
func (w *work) adopted(ctx context.Context) error {
	deadline := time.Now().Add(w.desk.Patience)
	for {
		missing, err := w.missing(ctx)
		switch {
		case err != nil:
			return reason.New(reason.StorageUnavailable, "which replicas run cannot be read; run it again").Because(err)
		case len(missing) == 0:
			return nil
		case time.Now().After(deadline):
			return blocked("these replicas have not said that they use the key %s: %s. Should one not run any more, name it as ignored; "+
				"otherwise find out what keeps it, and run this again", w.state.currentID(w.now.AccessKeyID), strings.Join(missing, ", "))
		}
		if err := w.hold(ctx); err != nil {
			return err
		}
		if err := pause(ctx, w.desk.Interval/2); err != nil {
			return err
		}
	}
}

// missing lists the replicas that have not adopted the turn's key.
func (w *work) missing(ctx context.Context) ([]string, error) {
	brokers, err := w.desk.Brokers(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(brokers, w.desk.Writer) {
		brokers = append(brokers, w.desk.Writer)
	}
	const page = 1000
	filter := storage.AuditFilter{After: w.state.began.Add(-time.Minute), Events: []string{string(audit.AccountKeyAdopted)}}
	var after *storage.AuditCursor
	adopted := map[string]bool{}
	for {
		records, err := w.desk.Store.ListAudit(ctx, filter, after, page)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r.Account == w.request.Account && r.Detail[detailTurn] == w.state.turn {
				adopted[r.Writer] = true
			}
			after = &storage.AuditCursor{Time: r.Time, Writer: r.Writer, Sequence: r.Sequence}
		}
		if len(records) < page {
			break
		}
	}
	return slices.DeleteFunc(brokers, func(b string) bool { return adopted[b] || slices.Contains(w.request.Ignored, b) }), nil
}

func (s state) currentID(configured string) string {
	if s.current == nil {
		return configured
	}
	return s.current.ID
}

// disable disables the old key, which nobody uses any more.
func (w *work) disable(ctx context.Context) error {
	if err := w.adopted(ctx); err != nil {
		return err
	}
	if err := w.did(ctx, Adopted, w.state.current.ID, "every replica uses the new key"); err != nil {
		return err
	}
	if err := w.hold(ctx); err != nil {
		return err
	}
	if err := w.account.IAM.SetActive(ctx, w.user, w.state.old, false); err != nil {
		return w.iamFailed(err)
	}
	next := w.state
	next.phase = disabled
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.did(ctx, Disabled, w.state.old, "the old key was disabled; until it is deleted the rotation can be aborted")
}

// finish deletes the old key.
func (w *work) finish(ctx context.Context) error {
	if err := pause(ctx, w.desk.Settle); err != nil {
		return err
	}
	// With the old key disabled: the new one must work without it.
	if err := w.verify(ctx, w.state.current.credentials()); err != nil {
		return err
	}
	if err := w.account.IAM.Delete(ctx, w.user, w.state.old); err != nil {
		return w.iamFailed(err)
	}
	old := w.state.old
	next := w.state
	next.phase, next.before, next.next, next.old, next.user, next.turn = idle, nil, nil, "", "", ""
	next.retired = append(slices.Clone(w.state.retired), old)
	next.retired = next.retired[max(0, len(next.retired)-maxRetired):]
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.did(ctx, Deleted, old, "the old key was deleted")
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
