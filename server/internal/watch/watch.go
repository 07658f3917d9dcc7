package watch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// interval is how often a watch looks for new records, and asks whether it
	// may go on.
	interval = time.Second
	// quiet is how long a watch tells nothing before it says that it is alive.
	quiet = 15 * time.Second
	// window is how long after its last record a writer is named in positions.
	window = time.Hour
	// mostRead and leastRead bound how many records of one writer are read at
	// once: few of each where there are many writers to read.
	mostRead, leastRead = 256, 16
)

// Trail is what is read. Both calls are those of storage.Audit.
type Trail interface {
	AuditHeads(ctx context.Context) ([]storage.AuditHead, error)
	AuditChain(ctx context.Context, writer string, from int64, limit int) ([]storage.AuditRecord, error)
}

// News is what a watch tells.
type News struct {
	// Record is what happened; nil: the watch is alive, no more.
	Record *storage.AuditRecord
	// Trimmed is how many records were gone before the watch came to them.
	Trimmed int64
	// Position is where to go on after this.
	Position Position
}

// Request says what to watch.
type Request struct {
	// From is where another watch had come to. Zero: begin at Since.
	From Position
	// Since is the earliest time of a record, without From. Zero: begin with
	// what is recorded after the call.
	Since time.Time
	// Wanted chooses records.
	Wanted func(storage.AuditRecord) bool
	// Alive is asked at least every second or so, whenever Tell does not hold
	// the watch up. Its error ends the watch.
	Alive func() error
	// Tell gets the news, at once that the watch has begun, and may take its
	// time: the watch waits, and reads nothing meanwhile. Its error ends the
	// watch. The record is Tell's to keep.
	Tell func(News) error
}

// Watcher serves watches. However many there are, the heads of the trail are
// read twice a second at most.
type Watcher struct {
	trail Trail

	// turn holds one token: whoever has it may read the heads.
	turn  chan struct{}
	heads []storage.AuditHead // shared, never changed
	read  time.Time           // when the heads were read

	mu sync.Mutex
	// ends has the last record of writers, begins what their first ones tell,
	// so that what does not change any more is read once in the broker's life.
	ends   map[string]end
	begins map[string]begin
}

// end is a writer's last record.
type end struct {
	sequence int64
	time     time.Time
	event    string
}

// New makes a Watcher of a trail.
func New(trail Trail) *Watcher {
	w := &Watcher{trail: trail, turn: make(chan struct{}, 1), ends: map[string]end{}, begins: map[string]begin{}}
	w.turn <- struct{}{}
	return w
}

// Follow tells what is recorded until ctx ends, with its cause, or something
// fails. An error of the trail's ends the watch too: it can go on from its last
// Position.
func (w *Watcher) Follow(ctx context.Context, r Request) error {
	f, err := w.begin(ctx, r)
	if err != nil {
		return err
	}
	if err := f.tell(nil); err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := f.alive(ctx); err != nil {
			return err
		}
		heads, err := w.look(ctx, interval/2)
		if err != nil {
			return err
		}
		if err := f.catchUp(ctx, heads); err != nil {
			return err
		}
		if f.trimmed > 0 || time.Since(f.told) >= quiet {
			if err := f.tell(nil); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// look gives heads that are at most so old.
func (w *Watcher) look(ctx context.Context, age time.Duration) ([]storage.AuditHead, error) {
	select {
	case <-w.turn:
		defer func() { w.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !w.read.IsZero() && time.Since(w.read) < age {
		return w.heads, nil
	}
	now := time.Now()
	heads, err := w.trail.AuditHeads(ctx)
	if err != nil {
		return nil, failed(ctx, err)
	}
	w.heads, w.read = heads, now
	return heads, nil
}

// failed is why the trail could not be read; that the watch was ended comes
// before what the trail says about it.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("follow the audit trail: %w", err)
}

// begin finds the place to begin at in every chain.
func (w *Watcher) begin(ctx context.Context, r Request) (*follower, error) {
	f := &follower{
		Request: r, watcher: w, next: map[string]int64{}, recent: map[string]time.Time{},
		floor: time.Now().Add(-window), asked: time.Now(),
	}
	fromNow := r.From == "" && r.Since.IsZero()
	b := bookmark{floor: r.Since.Add(-time.Microsecond)}
	if r.From != "" {
		var err error
		if b, err = r.From.open(); err != nil {
			return nil, err
		}
	}
	if !fromNow {
		f.floor = b.floor
	}
	heads, err := w.look(ctx, 0)
	if err != nil {
		return nil, err
	}
	for _, head := range heads {
		next, named := b.next[head.Writer]
		if !named && fromNow {
			next = head.Sequence + 1
		} else if !named {
			if next, err = w.seek(ctx, head, f.floor); err != nil {
				return nil, err
			}
		}
		if err := f.start(ctx, head, next, named); err != nil {
			return nil, err
		}
	}
	f.raise(f.floor)
	return f, nil
}

// start begins a chain at its place. A writer that the position named is named
// in the next one too.
func (f *follower) start(ctx context.Context, head storage.AuditHead, next int64, named bool) error {
	f.next[head.Writer] = next
	var at time.Time
	var err error
	switch {
	case next > head.Sequence:
		at, err = f.watcher.last(ctx, head)
	case named:
		at, err = f.watcher.timeAt(ctx, head.Writer, next-1)
	}
	if named && !at.After(f.floor) {
		at = f.floor.Add(time.Microsecond)
	}
	if at.After(f.floor) {
		f.recent[head.Writer] = at
	}
	return err
}

// last gives the time of a chain's last record; zero where it has none left.
func (w *Watcher) last(ctx context.Context, head storage.AuditHead) (time.Time, error) {
	e, err := w.end(ctx, head)
	return e.time, err
}

// end gives a chain's last record; the zero end where it has none left.
func (w *Watcher) end(ctx context.Context, head storage.AuditHead) (end, error) {
	if head.First > head.Sequence {
		return end{}, nil
	}
	w.mu.Lock()
	known := w.ends[head.Writer]
	w.mu.Unlock()
	if known.sequence == head.Sequence {
		return known, nil
	}
	found, err := w.trail.AuditChain(ctx, head.Writer, head.Sequence, 1)
	if err != nil {
		return end{}, failed(ctx, err)
	}
	known = end{sequence: head.Sequence}
	if len(found) > 0 {
		known.time, known.event = found[0].Time, found[0].Event
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[head.Writer] = known
	return known, nil
}

// timeAt gives the time of the first record at or after a sequence; zero if
// there is none.
func (w *Watcher) timeAt(ctx context.Context, writer string, sequence int64) (time.Time, error) {
	found, err := w.trail.AuditChain(ctx, writer, sequence, 1)
	if err != nil {
		return time.Time{}, failed(ctx, err)
	}
	if len(found) == 0 {
		return time.Time{}, nil
	}
	return found[0].Time, nil
}

// seek gives the sequence of a chain's first record after a moment.
func (w *Watcher) seek(ctx context.Context, head storage.AuditHead, moment time.Time) (int64, error) {
	last, err := w.last(ctx, head)
	if err != nil || !last.After(moment) {
		return head.Sequence + 1, err
	}
	n := sort.Search(int(head.Sequence-head.First), func(i int) bool {
		if err != nil {
			return true
		}
		var at time.Time
		at, err = w.timeAt(ctx, head.Writer, head.First+int64(i))
		return at.IsZero() || at.After(moment)
	})
	return head.First + int64(n), err
}

// follower is one watch.
type follower struct {
	Request
	watcher *Watcher
	// next is the sequence to go on with, of every writer that is known.
	next map[string]int64
	// Everything up to the floor has been passed. recent has the writers that
	// were passed further than that, with how far.
	floor  time.Time
	recent map[string]time.Time
	// told is when something was told last, asked when Alive was asked last.
	told, asked time.Time
	// trimmed counts what the next news reports.
	trimmed int64
}

// alive asks whether the watch may go on.
func (f *follower) alive(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.asked = time.Now()
	return f.Alive()
}

// tell tells of a record, or that there is none.
func (f *follower) tell(r *storage.AuditRecord) error {
	n := News{Record: r, Trimmed: f.trimmed, Position: f.position()}
	f.trimmed = 0
	err := f.Tell(n)
	f.told = time.Now()
	return err
}

// position writes down where the watch stands.
func (f *follower) position() Position {
	b := bookmark{floor: f.floor, next: make(map[string]int64, len(f.recent))}
	for writer, at := range f.recent {
		if at.After(f.floor) {
			b.next[writer] = f.next[writer]
		} else {
			delete(f.recent, writer)
		}
	}
	return b.position()
}

// chain is a writer's records that are read and not yet passed.
type chain struct {
	writer string
	end    int64 // the last durable sequence
	ahead  []storage.AuditRecord
}

// catchUp passes all records up to the heads, in order of time as far as each
// chain is.
func (f *follower) catchUp(ctx context.Context, heads []storage.AuditHead) error {
	var behind []*chain
	for _, head := range heads {
		if _, known := f.next[head.Writer]; !known {
			f.next[head.Writer] = 1 // it began after the watch did
		}
		if f.next[head.Writer] <= head.Sequence {
			behind = append(behind, &chain{writer: head.Writer, end: head.Sequence})
		}
	}
	for len(behind) > 0 {
		for _, c := range behind {
			if len(c.ahead) == 0 {
				if err := f.read(ctx, c, len(behind)); err != nil {
					return err
				}
			}
		}
		behind = slices.DeleteFunc(behind, func(c *chain) bool { return len(c.ahead) == 0 })
		if len(behind) == 0 {
			break
		}
		if err := f.pass(ctx, slices.MinFunc(behind, earlier)); err != nil {
			return err
		}
	}
	return nil
}

func earlier(a, b *chain) int {
	return cmp.Or(a.ahead[0].Time.Compare(b.ahead[0].Time), cmp.Compare(a.writer, b.writer))
}

// read reads on in a chain; nothing where all of it was passed.
func (f *follower) read(ctx context.Context, c *chain, chains int) error {
	next := f.next[c.writer]
	if next > c.end {
		return nil
	}
	found, err := f.watcher.trail.AuditChain(ctx, c.writer, next, min(max(mostRead/chains, leastRead), int(min(c.end-next+1, mostRead))))
	if err != nil {
		return failed(ctx, err)
	}
	// What was appended since the heads were read waits for the next look, so
	// that no writer is told of ahead of the others.
	found = slices.DeleteFunc(found, func(r storage.AuditRecord) bool { return r.Sequence > c.end })
	if len(found) == 0 {
		f.trimmed += c.end - next + 1
		f.next[c.writer] = c.end + 1
		return nil
	}
	f.trimmed += found[0].Sequence - next
	c.ahead = found
	return nil
}

// pass tells of a chain's next record if it is wanted.
func (f *follower) pass(ctx context.Context, c *chain) error {
	if ctx.Err() != nil || time.Since(f.asked) >= interval {
		if err := f.alive(ctx); err != nil {
			return err
		}
	}
	r := c.ahead[0]
	c.ahead = c.ahead[1:]
	f.next[c.writer] = r.Sequence + 1
	if r.Time.After(f.recent[c.writer]) {
		f.recent[c.writer] = r.Time
	}
	// Every chain has been passed to just before this record, and nobody
	// writes records as old as the window any more.
	if floor := time.Now().Add(-window); r.Time.Before(floor) {
		f.raise(r.Time.Add(-time.Microsecond))
	} else {
		f.raise(floor)
	}
	if f.Wanted(r) {
		return f.tell(&r)
	}
	if time.Since(f.told) >= quiet {
		return f.tell(nil)
	}
	return nil
}

// raise moves the floor up, never down; while the position would name too many
// writers, further up.
func (f *follower) raise(to time.Time) {
	if to.After(f.floor) {
		f.floor = to
	}
	for len(f.recent) > maxWriters {
		oldest, at := "", time.Time{}
		for writer, t := range f.recent {
			if oldest == "" || t.Before(at) {
				oldest, at = writer, t
			}
		}
		delete(f.recent, oldest)
		if at.After(f.floor) {
			f.floor = at
		}
	}
}
