package agent

import (
	"sync"
	"time"

	"github.com/stokerd/stoker/client"
)

// record remembers of each user and grant what their present state does not tell:
// when the last renewal was, and what last went wrong. It keeps no credential. Its
// methods are safe for concurrent use.
type record struct {
	mu      sync.Mutex
	users   map[string]*Trouble
	grants  map[string]*history // by login and grant
	fileErr *Trouble
	fileAt  time.Time
}

// history is what is remembered of a grant.
type history struct {
	renewed  time.Time
	renewals int
	last     *Trouble
}

func newRecord() *record {
	return &record{users: make(map[string]*Trouble), grants: make(map[string]*history)}
}

// of gives a grant's history, making it if need be. It needs mu.
func (r *record) of(login, grant string) *history {
	key := login + "\x00" + grant
	if r.grants[key] == nil {
		r.grants[key] = &history{}
	}
	return r.grants[key]
}

// note takes note of an event.
func (r *record) note(login string, e client.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == client.EventCredential {
		h := r.of(login, e.Grant)
		h.renewed, h.renewals = e.Time, h.renewals+1
	}
	trouble := newTrouble(e.Err, e.Time)
	switch {
	case trouble == nil:
	case e.Grant != "":
		r.of(login, e.Grant).last = trouble
	case e.Kind != client.EventCertificate: // which is everybody's, and reported by itself
		r.users[login] = trouble
	}
}

// wrote takes note of how the shared-credentials file went.
func (r *record) wrote(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.fileErr = newTrouble(err, now)
	if err == nil {
		r.fileAt = now
	}
}

// lastOf gives what last went wrong for a user.
func (r *record) lastOf(login string) *Trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[login]
}

// complete adds a grant's history to its report.
func (r *record) complete(login string, g *Grant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(login, g.Name)
	g.Renewed, g.Renewals, g.LastError = h.renewed.UTC(), h.renewals, h.last
}

// file reports on the shared-credentials file.
func (r *record) file(path string) *CredentialsFile {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &CredentialsFile{Path: path, Written: r.fileAt.UTC(), Error: r.fileErr}
}
