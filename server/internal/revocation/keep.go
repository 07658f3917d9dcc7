package revocation

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// elsewhere is how long at least a keeper leaves a revocation to the
	// replica on which it was made; drawn from there to twice that.
	elsewhere = 2 * time.Second
	// repairEvery is how often a policy that stands is compared with what it
	// should be.
	repairEvery = 10 * time.Minute
	// settleAfter is how long an account may take to give back what was
	// written to it.
	settleAfter = 15 * time.Second
	// lookAgain is how soon it is asked again meanwhile.
	lookAgain = time.Second
	// backoffFirst and backoffMost bound the waits after failures.
	backoffFirst = time.Second
	backoffMost  = 5 * time.Minute
	// pace is the least time between two rounds: operators may revoke one by
	// one from a list, and IAM takes few writes a second.
	pace = time.Second
	// maxWait bounds the sleep of a keeper that has nothing to do.
	maxWait = 24 * time.Hour
	// roundLimit bounds one round of a keeper.
	roundLimit = 2 * time.Minute
	// writes bounds how often one round writes.
	writes = 3
)

// IAM is the inline policies of the one role or user that an account issues
// for. Its errors are for people, and hold no secret.
type IAM interface {
	// Inline reads what stands there.
	Inline(ctx context.Context) (Inline, error)
	// Put makes the document the policy called PolicyName.
	Put(ctx context.Context, document string) error
	// Delete removes the policy called PolicyName. It is no error if there is
	// none.
	Delete(ctx context.Context) error
}

// Inline is what stands on an account.
type Inline struct {
	// Subject is the role or user, for people.
	Subject string
	// Document is the policy called PolicyName; empty: there is none.
	Document string
	// Others is how much space the other inline policies take of Limit, in
	// characters without white space.
	Others, Limit int
}

// keeper keeps one account's policy, or what has to be done without one.
type keeper struct {
	desk *Desk
	name string // empty: every account that has no keeper
	Account
	log *slog.Logger

	// kicked has a place for one time at which to look again.
	mu     sync.Mutex
	due    time.Time
	kicked chan struct{}

	// The rest belongs to run.
	failures int
	// standing is what was last read; wrote is what was written at wroteAt and
	// has not been read back.
	standing Inline
	wrote    *string
	wroteAt  time.Time
	// said is what was logged last, so that it is said once.
	said string
	rand func() float64
}

// open makes a keeper for each account that applies, and one for all others.
func (d *Desk) open() {
	for name, a := range d.Accounts {
		if a.Mode == Apply || a.Mode == Print {
			d.keepers = append(d.keepers, d.keeper(name, a))
		}
	}
	d.keepers = append(d.keepers, d.keeper("", Account{Mode: None}))
}

func (d *Desk) keeper(name string, a Account) *keeper {
	return &keeper{
		desk: d, name: name, Account: a, log: d.Log.With("account", name), kicked: make(chan struct{}, 1), rand: rand.Float64,
	}
}

// keeperOf is the keeper of an account.
func (d *Desk) keeperOf(account string) *keeper {
	for _, k := range d.keepers {
		if k.name == account {
			return k
		}
	}
	return d.keepers[len(d.keepers)-1]
}

// Run keeps the accounts until ctx ends. It must be called once.
func (d *Desk) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, k := range d.keepers {
		running.Go(func() { k.run(ctx) })
	}
	running.Wait()
	return nil
}

// Changed looks at the accounts that changes concern. It is an observer of the
// directory, which has the changes already.
func (d *Desk) Changed(changes []storage.Change) {
	if !slices.ContainsFunc(changes, func(c storage.Change) bool { return c.Kind == storage.KindRevocation }) {
		return
	}
	for _, r := range d.Directory.Revocations() {
		k := d.keeperOf(r.Account)
		if k.unsettled(r) {
			// What was made here is under way already; what others made they
			// mostly write themselves.
			k.kick(elsewhere + time.Duration(k.rand()*float64(elsewhere)))
			continue
		}
		k.kick(min(k.repairIn(), k.left(r)))
	}
}

// left is how long the revocation is not over, and a moment more by chance, so
// that not all replicas end it at once.
func (k *keeper) left(r storage.Revocation) time.Duration {
	if r.Until.IsZero() {
		return math.MaxInt64
	}
	return r.Until.Add(clockMargin).Sub(k.desk.Now()) + time.Duration(k.rand()*float64(elsewhere))
}

// unsettled says whether the keeper has something to do for a revocation soon.
func (k *keeper) unsettled(r storage.Revocation) bool {
	switch k.Mode {
	case Apply:
		return r.State != storage.RevocationApplied && r.TargetKind != kindCertificate
	case Print:
		return true
	default:
		return r.State == storage.RevocationPending || r.State == storage.RevocationFailed
	}
}

func (d *Desk) kick(account string, in time.Duration) { d.keeperOf(account).kick(in) }

// kick makes the keeper look again after a while, or sooner if it is about to.
func (k *keeper) kick(in time.Duration) {
	if in > maxWait {
		in = maxWait
	}
	at := time.Now().Add(in)
	k.mu.Lock()
	if k.due.IsZero() || at.Before(k.due) {
		k.due = at
	}
	k.mu.Unlock()
	select {
	case k.kicked <- struct{}{}:
	default:
	}
}

// run does a round whenever something is due.
func (k *keeper) run(ctx context.Context) {
	// Replicas that start together take turns.
	k.kick(time.Duration(k.rand() * float64(elsewhere)))
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	var last time.Time
	for {
		k.mu.Lock()
		due := k.due
		k.mu.Unlock()
		wait := maxWait
		if !due.IsZero() {
			wait = max(time.Until(due), pace-time.Since(last))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-k.kicked:
			continue
		case <-timer.C:
		}
		k.mu.Lock()
		k.due = time.Time{}
		k.mu.Unlock()
		last = time.Now()
		if next := k.round(ctx); next > 0 {
			k.kick(next)
		}
	}
}

// round does what is to be done now, and says when to look again; 0: when
// something changes.
func (k *keeper) round(ctx context.Context) time.Duration {
	limited, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	var next time.Duration
	err := k.desk.Directory.Sync(limited)
	if err == nil {
		next, err = k.keep(limited)
	}
	switch {
	case ctx.Err() != nil:
		return 0
	case err == nil:
		k.failures = 0
		return next
	}
	k.failures++
	wait := k.backoff()
	k.log.WarnContext(ctx, "revocations are not as they should be; trying again", "error", err, "in", wait.Round(time.Millisecond), "failures", k.failures)
	return wait
}

// backoff grows to backoffMost, less up to a half by chance.
func (k *keeper) backoff() time.Duration {
	wait := backoffMost
	if k.failures < 10 {
		wait = min(wait, backoffFirst<<(k.failures-1))
	}
	return wait/2 + time.Duration(k.rand()*float64(wait/2))
}

// keep takes each revocation of the keeper as far as it goes today.
func (k *keeper) keep(ctx context.Context) (time.Duration, error) {
	var problem error
	next := time.Duration(0)
	if k.Mode == Apply {
		next, problem = k.apply(ctx)
	}
	active, over := k.revocations()
	if k.Mode == Print {
		k.print(ctx, active)
	}
	if k.Mode != Apply {
		problem = k.local(ctx, active, over)
	}
	for _, r := range active {
		if left := k.left(r); left < math.MaxInt64 && (next == 0 || left < next) {
			next = left
		}
	}
	return next, problem
}

// revocations are those of the keeper's account that are not over, and those
// that are: the last session they deny has ended, by any clock.
func (k *keeper) revocations() (active, over []storage.Revocation) {
	now := k.desk.Now()
	for _, r := range k.desk.Directory.Revocations() {
		switch {
		case k.desk.keeperOf(r.Account) != k:
		case r.Until.IsZero() || now.Before(r.Until.Add(clockMargin)):
			active = append(active, r)
		default:
			over = append(over, r)
		}
	}
	return active, over
}

// refusal is an error of the account, as opposed to one of the broker's own
// parts.
type refusal struct{ error }

// apply makes the account's policy what it should be, and then says so.
func (k *keeper) apply(ctx context.Context) (time.Duration, error) {
	o, err := k.reconcile(ctx)
	if failure, ok := errors.AsType[refusal](err); ok {
		return 0, errors.Join(err, k.failed(ctx, o, failure))
	}
	if err != nil || !o.stands {
		return lookAgain, err
	}
	var problems []error
	for _, r := range o.active {
		if why, left := o.document.LeftOut[r.ID]; left {
			problems = append(problems, k.move(ctx, r, storage.RevocationFailed, why))
			continue
		}
		problems = append(problems, k.move(ctx, r, storage.RevocationApplied, ""))
	}
	for _, r := range o.over {
		problems = append(problems, k.move(ctx, r, storage.RevocationExpired, ""))
	}
	k.tell(ctx, o.document)
	next := time.Duration(0)
	if len(o.active) > 0 {
		next = k.repairIn()
	}
	return next, errors.Join(problems...)
}

func (k *keeper) repairIn() time.Duration {
	return repairEvery + time.Duration(k.rand()*float64(repairEvery/10))
}

// outcome is what a reconciliation went by, and what came of it.
type outcome struct {
	active, over []storage.Revocation
	document     Document
	// stands: the document was read back from the account.
	stands bool
}

// reconcile compares what stands on the account with what should, and writes
// until it reads back what it wrote. What should is found anew each time:
// another replica may have written in between, on newer or older knowledge.
func (k *keeper) reconcile(ctx context.Context) (o outcome, err error) {
	for range writes {
		if err := k.desk.Directory.Sync(ctx); err != nil {
			return o, err
		}
		o = outcome{}
		o.active, o.over = k.revocations()
		if k.standing, err = k.IAM.Inline(ctx); err != nil {
			return o, refusal{err}
		}
		o.document = Compose(o.active, k.standing.Limit-k.standing.Others)
		want := o.document.Text
		if k.standing.Document == want {
			k.wrote, o.stands = nil, true
			return o, nil
		}
		if k.wrote != nil && *k.wrote == want && time.Since(k.wroteAt) < settleAfter {
			// Written already, and not visible yet.
			return o, nil
		}
		if want == "" {
			err = k.IAM.Delete(ctx)
		} else {
			err = k.IAM.Put(ctx, want)
		}
		if err != nil {
			return o, refusal{err}
		}
		k.wrote, k.wroteAt = &want, time.Now()
		k.log.InfoContext(ctx, "the policy that denies revoked credentials was changed", "subject", k.standing.Subject,
			"policy", PolicyName, "characters", len(want), "revocations", len(o.active)-len(o.document.LeftOut))
	}
	return o, nil
}

// tell logs what merging and missing space mean, once.
func (k *keeper) tell(ctx context.Context, d Document) {
	said := d.Merging.String()
	if d.Merging == Exact && len(d.LeftOut) == 0 {
		said = ""
	}
	if said == k.said {
		return
	}
	k.said = said
	if said != "" {
		k.log.WarnContext(ctx, "the revocations do not fit into the policy one by one; credentials of the same tenants that are older than the latest revocation are denied with them",
			"subject", k.standing.Subject, "merging", said, "left_out", len(d.LeftOut), "space", k.standing.Limit-k.standing.Others)
	}
}

// print logs the policy that would be written, when it is another one.
func (k *keeper) print(ctx context.Context, active []storage.Revocation) {
	d := Compose(active, k.Limit)
	if d.Text == k.said {
		return
	}
	k.said = d.Text
	if d.Text == "" {
		k.log.InfoContext(ctx, "nothing is to be denied any more: remove the policy if you have written it", "policy", PolicyName)
		return
	}
	k.log.InfoContext(ctx, "this policy would deny what was issued before the revocations", "policy", PolicyName,
		"document", d.Text, "merging", d.Merging.String(), "left_out", len(d.LeftOut))
}
