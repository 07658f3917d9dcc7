package stream

import (
	"errors"
	"sync"
	"time"

	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

// direct says which relation a change's id belongs to. Certificates and grants
// are looked up first.
var direct = map[storage.Kind]relation{
	storage.KindTenant:  ofTenant,
	storage.KindUser:    ofUser,
	storage.KindAgent:   ofAgent,
	storage.KindSession: ofSession,
}

// Changed ends the streams whose callers are no longer good after the changes,
// and has those look again whose grants may be others now. It is called after
// the directory has the changes. What it costs depends on the streams that the
// changes concern alone.
//
// When it returns, nothing leaves on a stream that has to end: the calls
// themselves are finished a moment later, each with its reason.
func (r *Registry) Changed(changes []storage.Change) { r.changed(changes, nil) }

// After gives what tells both the leases and the streams of changes. Streams
// that have to end fall silent first, so that their leases have nothing to send
// to them; but their calls are finished after the leases know of the changes,
// because theirs are the audit records of what is lost.
func (r *Registry) After(leases func([]storage.Change)) func([]storage.Change) {
	return func(changes []storage.Change) { r.changed(changes, leases) }
}

func (r *Registry) changed(changes []storage.Change, leases func([]storage.Change)) {
	doubtful, moved := r.concerned(changes)
	var over []*Stream
	for s := range doubtful {
		if err := r.Checker.Check(*s.principal); err != nil && s.mark(r.spread(err, len(doubtful))) {
			over = append(over, s)
		}
	}
	if leases != nil {
		leases(changes)
	}
	r.finish(over)
	for s := range moved {
		s.unsettle()
	}
}

// spread has agents whose user got another password log in again one after the
// other, and not all at once: each login is a password to be checked.
func (r *Registry) spread(err error, streams int) error {
	known, ok := errors.AsType[*reason.Error](err)
	if !ok || known.Reason != reason.PasswordChanged || r.LoginPace == nil || streams < 2 {
		return err
	}
	wait := time.Duration(chance() * float64(streams) * float64(r.LoginPace()))
	return known.After(min(wait.Round(time.Millisecond), longestSpread))
}

// longestSpread bounds how long an agent is kept from logging in again.
const longestSpread = 10 * time.Minute

// Recheck ends every stream whose caller is no longer good. It is for what
// comes with no change of the directory: a new revocation list.
func (r *Registry) Recheck() {
	var over []*Stream
	for _, s := range r.everyone() {
		if err := r.Checker.Check(*s.principal); err != nil && s.mark(err) {
			over = append(over, s)
		}
	}
	r.finish(over)
}

// finish ends the calls of streams that were marked as ended. Doing so for ten
// thousand of them takes longer than an operator's call should wait for, and
// clearing up after them several times as long: so all are told first.
func (r *Registry) finish(streams []*Stream) {
	if len(streams) == 0 {
		return
	}
	r.telling.begin()
	go func() {
		defer r.telling.end()
		for _, s := range streams {
			s.conn.Finish(s.err)
		}
	}()
}

// telling is while agents are being told that their streams have ended.
type telling struct {
	mu sync.Mutex
	n  int
	// over closes when n is 0 again; nil: nobody has waited.
	over chan struct{}
}

func (t *telling) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *telling) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.over != nil {
		close(t.over)
		t.over = nil
	}
}

// wait returns when all are told who were being told at the call.
func (t *telling) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.over == nil {
		t.over = make(chan struct{})
	}
	over := t.over
	t.mu.Unlock()
	<-over
}

// concerned finds the streams whose caller may not be good any more, and those
// whose grants may have moved.
func (r *Registry) concerned(changes []storage.Change) (doubtful, moved map[*Stream]struct{}) {
	doubtful, moved = map[*Stream]struct{}{}, map[*Stream]struct{}{}
	grants := map[string]grantChanges{}
	for _, c := range changes {
		switch c.Kind {
		case storage.KindCertificate:
			if certificate, revoked := r.Directory.RevokedCertificate(c.ID); revoked {
				r.collect(ofCertificate, certificate.Serial, doubtful)
			}
		case storage.KindGrant:
			r.collectGrant(c.ID, grants)
		default:
			if relation, ok := direct[c.Kind]; ok {
				r.collect(relation, c.ID, doubtful)
			}
		}
	}
	for tenantID, changed := range grants {
		tenants := map[*Stream]struct{}{}
		r.collect(ofTenant, tenantID, tenants)
		for s := range tenants {
			if s.uses(changed) {
				moved[s] = struct{}{}
			}
		}
	}
	return doubtful, moved
}

// collect adds the streams under the key.
func (r *Registry) collect(by relation, key string, to map[*Stream]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.index.all(by, key) {
		to[s] = struct{}{}
	}
}

// grantChanges are the grants of a tenant that came, changed or went: all by
// id, without a name those that are gone.
type grantChanges map[string]storage.Grant

// collectGrant adds the grant to its tenant's. A grant that is gone and to
// which no stream has subscribed concerns none.
func (r *Registry) collectGrant(id string, to map[string]grantChanges) {
	g, ok := r.Directory.Grant(id)
	if !ok {
		r.mu.Lock()
		g.TenantID = r.watched[id].tenantID
		r.mu.Unlock()
	}
	if g.TenantID == "" {
		return
	}
	if to[g.TenantID] == nil {
		to[g.TenantID] = grantChanges{}
	}
	to[g.TenantID][id] = g
}

// uses says whether the stream's subscriptions may be others after the changes.
// A grant that it is supplied with and still may have is its lease's business
// alone.
func (s *Stream) uses(changed grantChanges) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, g := range changed {
		supplied, named := false, false
		for _, e := range s.entries {
			if e.supply != nil && e.supply.grantID == id {
				if e.name != g.Name || !owns(*s.principal, g) {
					return true
				}
				supplied = true
			} else if e.name == g.Name {
				named = true
			}
		}
		if named || s.all && !supplied {
			return true
		}
	}
	return false
}
