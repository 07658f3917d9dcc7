package authn

import (
	"context"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
)

const (
	// freeFailures is how many wrong passwords cost no delay.
	freeFailures = 3
	// The first delay; each further failure doubles it, up to the longest.
	firstDelay   = time.Second
	longestDelay = 5 * time.Minute
	// forgetAfter is how long it takes to forget one failure.
	forgetAfter = 10 * time.Minute
	// mostFailures is where counting ends; it is past the longest delay.
	mostFailures = 16

	// maxParallel is how many logins of one certificate are checked at once,
	// so that one agent cannot fill the pool, and maxWaiting how many more
	// may wait their turn.
	maxParallel = 3
	maxWaiting  = 64
	// maxLogins is how many logins of one certificate are told apart.
	maxLogins = 8
	// maxPeers is how many certificates are remembered.
	maxPeers = 4096
)

// throttle delays wrong logins, counted per certificate and login, so that
// nobody can lock out a login for another certificate.
//
// Its memory is bounded without giving a guesser a way to be forgotten: of one
// certificate only so many logins are told apart, the others share one count;
// and of all certificates the one soonest forgotten anyway makes room, which a
// guesser could only use with thousands of valid certificates.
//
// An attempt is admitted before its password is checked and counted after, so
// attempts at once are limited as well: they never exceed the failures that
// are still free, and are one at a time from then on.
type throttle struct {
	mu    sync.Mutex
	peers map[string]*peerFailures
	limit int
}

// peerFailures is what is remembered of one certificate.
type peerFailures struct {
	logins  map[string]*failures
	others  failures // of logins that found no place
	running int
	waiting int
	// changed is closed when an attempt ends, and replaced.
	changed chan struct{}
}

// failures is one count.
type failures struct {
	count   int
	until   time.Time // when the next attempt is let in
	since   time.Time // from when on forgetting is reckoned
	running int
}

func newThrottle() *throttle {
	return &throttle{peers: map[string]*peerFailures{}, limit: maxPeers}
}

// attempt is one admitted login; end must be called once.
type attempt struct {
	throttle   *throttle
	thumbprint string
	peer       *peerFailures
	entry      *failures
	shared     bool
}

// outcome is how an attempt ended.
type outcome int

const (
	undecided outcome = iota // no password was checked
	right
	wrong
)

// begin admits an attempt, after waiting for others of the same certificate
// where it must. LOGIN_DELAYED says how long earlier failures still delay it;
// LOGIN_BUSY that too many wait already.
func (t *throttle) begin(ctx context.Context, thumbprint, login string) (*attempt, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		now := time.Now()
		peer := t.peer(thumbprint, now)
		if peer == nil {
			return nil, reason.New(reason.LoginBusy, "too many certificates log in; wait as told").After(shortestShed)
		}
		entry, shared := peer.entry(login, now)
		entry.forget(now)
		if wait := entry.until.Sub(now); wait > 0 {
			t.drop(thumbprint, peer)
			return nil, reason.New(reason.LoginDelayed, "too many wrong logins with this certificate; wait as told").After(wait)
		}
		if peer.running < maxParallel && entry.running < max(1, freeFailures-entry.count) {
			peer.running++
			entry.running++
			return &attempt{throttle: t, thumbprint: thumbprint, peer: peer, entry: entry, shared: shared}, nil
		}
		if peer.waiting >= maxWaiting {
			return nil, reason.New(reason.LoginBusy, "too many logins with this certificate at once; wait as told").After(shortestShed)
		}
		if err := t.wait(ctx, peer); err != nil {
			t.drop(thumbprint, peer)
			return nil, err
		}
	}
}

// wait releases the lock until an attempt of the peer has ended.
func (t *throttle) wait(ctx context.Context, peer *peerFailures) error {
	peer.waiting++
	changed := peer.changed
	t.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.mu.Lock()
	peer.waiting--
	return err
}

// end counts the attempt.
func (a *attempt) end(o outcome) {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	a.peer.running--
	a.entry.running--
	switch {
	case o == wrong:
		a.entry.add(time.Now())
	case o == right && !a.shared:
		a.entry.count, a.entry.until = 0, time.Time{}
	}
	close(a.peer.changed)
	a.peer.changed = make(chan struct{})
	t.drop(a.thumbprint, a.peer)
}

// peer finds or makes the certificate's entry; nil if there is no room.
func (t *throttle) peer(thumbprint string, now time.Time) *peerFailures {
	if peer, ok := t.peers[thumbprint]; ok {
		return peer
	}
	if len(t.peers) >= t.limit && !t.makeRoom(now) {
		return nil
	}
	peer := &peerFailures{logins: map[string]*failures{}, changed: make(chan struct{})}
	t.peers[thumbprint] = peer
	return peer
}

// makeRoom forgets what has run its course, else the entry that would be
// forgotten first. It says whether it could.
func (t *throttle) makeRoom(now time.Time) bool {
	var first string
	var firstEnd time.Time
	for thumbprint, peer := range t.peers {
		if peer.running+peer.waiting > 0 {
			continue
		}
		end := peer.forgotten()
		if !end.After(now) {
			delete(t.peers, thumbprint)
			continue
		}
		if first == "" || end.Before(firstEnd) {
			first, firstEnd = thumbprint, end
		}
	}
	if len(t.peers) < t.limit {
		return true
	}
	delete(t.peers, first)
	return first != ""
}

// drop forgets a certificate of which there is nothing to remember.
func (t *throttle) drop(thumbprint string, peer *peerFailures) {
	if peer.running+peer.waiting > 0 || peer.others.count > 0 {
		return
	}
	for login, entry := range peer.logins {
		if entry.count > 0 {
			return
		}
		delete(peer.logins, login)
	}
	delete(t.peers, thumbprint)
}

// entry finds or makes the login's count; shared says that it is the one of
// all logins that found no place.
func (p *peerFailures) entry(login string, now time.Time) (_ *failures, shared bool) {
	if entry, ok := p.logins[login]; ok {
		return entry, false
	}
	if len(p.logins) >= maxLogins {
		for other, entry := range p.logins {
			if entry.forget(now); entry.count == 0 && entry.running == 0 {
				delete(p.logins, other)
			}
		}
	}
	if len(p.logins) >= maxLogins {
		return &p.others, true
	}
	entry := &failures{}
	p.logins[login] = entry
	return entry, false
}

// forgotten is when the last of the certificate's failures will be forgotten.
func (p *peerFailures) forgotten() time.Time {
	end := p.others.forgotten()
	for _, entry := range p.logins {
		if e := entry.forgotten(); e.After(end) {
			end = e
		}
	}
	return end
}

func (f *failures) forgotten() time.Time {
	return f.since.Add(time.Duration(f.count) * forgetAfter)
}

// forget takes off one failure for each forgetAfter that has passed.
func (f *failures) forget(now time.Time) {
	if f.count == 0 {
		return
	}
	steps := int(now.Sub(f.since) / forgetAfter)
	f.count = max(0, f.count-steps)
	f.since = f.since.Add(time.Duration(steps) * forgetAfter)
}

// add counts one failure and sets the delay after it.
func (f *failures) add(now time.Time) {
	f.forget(now)
	if f.count == 0 {
		f.since = now
	}
	f.count = min(f.count+1, mostFailures)
	if f.count > freeFailures {
		f.until = now.Add(min(firstDelay<<(f.count-freeFailures-1), longestDelay))
	}
}
