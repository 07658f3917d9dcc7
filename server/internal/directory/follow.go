package directory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// pollEvery is how long a lost notification can go unnoticed.
	pollEvery = time.Second
	// The wait after a failed round doubles between these. It stays under
	// pollEvery: a storage that is back is read at once.
	minBackoff = 50 * time.Millisecond
	maxBackoff = pollEvery
	// batchSize bounds how many changes are fetched and applied together: the
	// time for which look-ups wait, and what a slow storage can take back.
	batchSize = 512
	// fetchers is how many entities of a batch are fetched at once: over a
	// network one by one would take longer than a revocation may.
	fetchers = 8
	// Storage that does not answer for so long counts as failed.
	readTimeout  = 10 * time.Second
	fetchTimeout = 30 * time.Second
	loadTimeout  = 2 * time.Minute
	sweepEvery   = time.Hour
)

// errGap says that the feed does not lead from the picture to its head.
var errGap = errors.New("the feed has a gap")

// Run follows the feed until ctx ends, which is no error. Storage that fails is
// asked again; what it could not tell meanwhile is found when it returns. Run
// is called once.
func (d *Directory) Run(ctx context.Context) error {
	if err := d.progress.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		d.listen(ctx)
	}()
	defer func() {
		cancel()
		<-listening
		d.progress.stop()
	}()

	var wait backoff
	swept := time.Now()
	for ctx.Err() == nil {
		ticket := d.progress.begin()
		err := d.round(ctx)
		if err != nil && ctx.Err() != nil {
			break // the storage was not at fault
		}
		d.note(d.progress.end(ticket, err, time.Now()), err)
		if err != nil {
			// Neither notifications nor Sync cut this wait short: a storage
			// in trouble is not asked more often the more changes it has.
			sleep(ctx, wait.next())
			continue
		}
		wait.reset()
		if time.Since(swept) > sweepEvery {
			swept = time.Now()
			d.sweep(swept)
		}
		d.rest(ctx)
	}
	return nil
}

// rest waits until something may have changed.
func (d *Directory) rest(ctx context.Context) {
	poll := time.NewTimer(pollEvery)
	defer poll.Stop()
	select {
	case <-ctx.Done():
	case <-d.wake:
	case <-poll.C:
	}
}

// listen turns the notifications of storage into wakes. While there are none,
// polling alone keeps the picture current.
func (d *Directory) listen(ctx context.Context) {
	var wait backoff
	told := false
	for ctx.Err() == nil {
		listened, err := d.watch(ctx)
		if listened {
			told = false
			wait.reset()
		}
		if !told && ctx.Err() == nil {
			told = true
			d.log.WarnContext(ctx, "storage does not notify of changes; polling", "error", err)
		}
		sleep(ctx, wait.next())
	}
}

// watch wakes Run with each notification, until they end. It reports whether
// they ever began.
func (d *Directory) watch(ctx context.Context) (listened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	notifications, err := d.store.Watch(ctx)
	if err != nil {
		return false, fmt.Errorf("watch the change feed: %w", err)
	}
	d.wakeUp() // for what came before the watch began
	for range notifications {
		listened = true
		d.wakeUp()
	}
	return listened, errors.New("the notifications of the change feed ended")
}

func (d *Directory) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default: // Run has not taken the one before yet, and will look after it
	}
}

// note logs the moments at which the directory falls behind and catches up.
func (d *Directory) note(t turn, err error) {
	switch t {
	case fellBehind:
		d.log.Error("the directory cannot follow storage; deciding from the last known state", "error", err)
	case caughtUp:
		d.log.Info("the directory follows storage again", "sequence", d.Sequence())
	}
}

// round applies everything that is committed when it begins, and tells the
// observers.
func (d *Directory) round(ctx context.Context) error {
	head, err := d.head(ctx)
	if err != nil {
		return err
	}
	if head < d.Sequence() {
		return d.reload(ctx, "the feed's head went back, as after a restore")
	}
	for d.Sequence() < head {
		err := d.step(ctx)
		if errors.Is(err, errGap) {
			return d.reload(ctx, err.Error())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) head(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	head, err := d.store.Head(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the feed's head: %w", err)
	}
	return head, nil
}

// step applies one batch of changes.
func (d *Directory) step(ctx context.Context) error {
	changes, err := d.next(ctx)
	if err != nil {
		return err
	}
	updates, err := d.fetch(ctx, changes)
	if err != nil {
		return err
	}
	d.apply(updates, changes[len(changes)-1].Sequence)
	d.tell(changes)
	d.progress.moved(time.Now())
	return nil
}

// next reads the changes that follow the picture: at least one, and none
// missing.
func (d *Directory) next(ctx context.Context) ([]storage.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	after := d.Sequence()
	changes, err := d.store.Changes(ctx, after, batchSize)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, fmt.Errorf("%w: entries after %d were trimmed", errGap, after)
	case err != nil:
		return nil, fmt.Errorf("read the change feed: %w", err)
	case len(changes) == 0:
		return nil, fmt.Errorf("%w: nothing follows %d, which is not the head", errGap, after)
	}
	for i, c := range changes {
		if want := after + 1 + int64(i); c.Sequence != want {
			return nil, fmt.Errorf("%w: entry %d stands in the place of %d", errGap, c.Sequence, want)
		}
	}
	return changes, nil
}

// fetch reads each entity that the changes name, once, as it is now. It may be
// newer than its change; the change that made it so follows.
func (d *Directory) fetch(ctx context.Context, changes []storage.Change) ([]update, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	type entity struct {
		kind storage.Kind
		id   string
	}
	seen := make(map[entity]bool, len(changes))
	updates := make([]update, 0, len(changes))
	for _, c := range changes {
		if e := (entity{c.Kind, c.ID}); !seen[e] {
			seen[e] = true
			updates = append(updates, update{kind: c.Kind, id: c.ID})
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i := range updates {
		u := &updates[i]
		group.Go(func() (err error) {
			if u.entity, err = d.entity(ctx, u.kind, u.id); err != nil {
				return fmt.Errorf("read %s %s: %w", u.kind, u.id, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return updates, nil
}

// entity reads one entity. Nil: it is gone, or of a kind that is not held,
// perhaps one that only a newer broker knows.
func (d *Directory) entity(ctx context.Context, kind storage.Kind, id string) (any, error) {
	switch kind {
	case storage.KindTenant:
		return found(d.store.GetTenant(ctx, id))
	case storage.KindUser:
		return found(d.store.GetUser(ctx, id))
	case storage.KindAgent:
		return found(d.store.GetAgent(ctx, id))
	case storage.KindLocation:
		return found(d.store.GetLocation(ctx, id))
	case storage.KindGrant:
		return found(d.store.GetGrant(ctx, id))
	case storage.KindCertificate:
		return found(d.store.GetCertificate(ctx, id))
	case storage.KindSession:
		return found(d.store.GetEndedSession(ctx, id))
	case storage.KindRevocation:
		return found(d.store.GetRevocation(ctx, id))
	default:
		return nil, nil
	}
}

func found[T any](entity T, err error) (any, error) {
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &entity, nil
}

// apply changes the picture in memory alone: look-ups wait for no storage.
func (d *Directory) apply(updates []update, sequence int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range updates {
		d.picture.apply(u)
	}
	d.picture.sequence = sequence
	d.sequence.Store(sequence)
}

// reload replaces the picture, and tells the observers what is different.
func (d *Directory) reload(ctx context.Context, why string) error {
	d.log.WarnContext(ctx, "loading the directory again", "why", why, "sequence", d.Sequence())
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	snapshot, err := d.store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the directory: %w", err)
	}
	newer := newPicture(snapshot)
	// Only this goroutine changes a picture, so that reading it needs no lock.
	changes := difference(d.picture, newer)
	d.mu.Lock()
	d.picture = newer
	d.sequence.Store(newer.sequence)
	d.mu.Unlock()
	for len(changes) > 0 {
		n := min(len(changes), batchSize)
		d.tell(changes[:n])
		changes = changes[n:]
		d.progress.moved(time.Now())
	}
	return nil
}

// sweep forgets what nobody can use any more.
func (d *Directory) sweep(now time.Time) {
	gone := d.picture.expired(now)
	d.apply(gone, d.Sequence())
}

// backoff doubles from minBackoff to maxBackoff.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

// next is between half and the whole of the wait, so that replicas which lost
// the same storage do not ask it in step.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, minBackoff), maxBackoff)
	return b.last/2 + rand.N(b.last/2)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
