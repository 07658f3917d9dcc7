package directory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// Store is what the directory reads: the feed, and the entities it names.
type Store interface {
	storage.Feed
	GetTenant(ctx context.Context, id string) (storage.Tenant, error)
	GetUser(ctx context.Context, id string) (storage.User, error)
	GetAgent(ctx context.Context, id string) (storage.Agent, error)
	GetLocation(ctx context.Context, id string) (storage.Location, error)
	GetGrant(ctx context.Context, id string) (storage.Grant, error)
	GetCertificate(ctx context.Context, id string) (storage.Certificate, error)
	GetEndedSession(ctx context.Context, id string) (storage.EndedSession, error)
	GetRevocation(ctx context.Context, id string) (storage.Revocation, error)
}

// Directory answers from memory who and what may be. All methods are safe for
// concurrent use; look-ups never wait for storage. What they give out is the
// caller's own.
type Directory struct {
	store Store
	log   *slog.Logger

	// sequence mirrors picture.sequence. It is stored while mu is held, so
	// that whoever reads it first and the picture afterwards sees a picture
	// at least as new.
	sequence atomic.Int64
	mu       sync.RWMutex
	picture  *picture

	observing sync.Mutex
	observers []*observer

	// wake makes Run begin a round soon; its one place coalesces.
	wake     chan struct{}
	progress progress
}

// observer is pointed to, so that each Observe can be told from the others.
type observer struct{ tell func([]storage.Change) }

// Open loads the picture. Nothing is followed before Run.
func Open(ctx context.Context, store Store, log *slog.Logger) (*Directory, error) {
	snapshot, err := store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the directory: %w", err)
	}
	d := &Directory{store: store, log: log, wake: make(chan struct{}, 1)}
	d.picture = newPicture(snapshot)
	d.sequence.Store(snapshot.Sequence)
	d.progress.init(time.Now())
	return d, nil
}

// Sequence is the last change of the feed that the look-ups include. Read it
// before looking things up: then the answers are at least that new, and the
// audit trail's fence finds out whether they still hold.
func (d *Directory) Sequence() int64 { return d.sequence.Load() }

// Observe has fn called after each batch of changes is applied: in the order
// of the feed, never concurrently, with a slice of its own. A change says that
// the entity may be different now; the look-ups say how, and find nothing
// where it was deleted. One entity may be named more than once in a batch.
//
// After a gap in the feed the directory is loaded again: each difference comes
// as a change with the sequence of the load, and a change of
// storage.KindSealedKey without an id says that any key may have changed.
//
// fn must be quick, because Sync waits for it, and must not call Sync. An fn
// that was registered before a look-up is told of every change that the
// look-up did not include. After stop, a call in progress still ends.
func (d *Directory) Observe(fn func([]storage.Change)) (stop func()) {
	o := &observer{fn}
	d.observing.Lock()
	defer d.observing.Unlock()
	d.observers = append(slices.Clone(d.observers), o)
	return func() {
		d.observing.Lock()
		defer d.observing.Unlock()
		d.observers = slices.DeleteFunc(slices.Clone(d.observers), func(other *observer) bool { return other == o })
	}
}

// tell calls the observers. Only Run's goroutine does.
func (d *Directory) tell(changes []storage.Change) {
	d.observing.Lock()
	observers := d.observers // never changed in place
	d.observing.Unlock()
	for _, o := range observers {
		o.tell(slices.Clone(changes))
	}
}

// Tenant finds a tenant by id.
func (d *Directory) Tenant(id string) (storage.Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.tenants.get(id)
}

// TenantByName finds a tenant by its slug.
func (d *Directory) TenantByName(slug string) (storage.Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.tenants.find(name{"", slug})
}

// User finds a user by id. Users carry no password hash here.
func (d *Directory) User(id string) (storage.User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.users.get(id)
}

// UserByLogin finds a user by the canonical login inside a tenant.
func (d *Directory) UserByLogin(tenantID, login string) (storage.User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.users.find(name{tenantID, login})
}

// Agent finds an agent by id.
func (d *Directory) Agent(id string) (storage.Agent, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.agents.get(id)
}

// AgentByName finds an agent inside a tenant.
func (d *Directory) AgentByName(tenantID, agent string) (storage.Agent, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.agents.find(name{tenantID, agent})
}

// Location finds a location by id.
func (d *Directory) Location(id string) (storage.Location, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.locations.get(id)
}

// LocationByName finds a location.
func (d *Directory) LocationByName(location string) (storage.Location, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.picture.locations.find(name{"", location})
}

// Grant finds a grant by id.
func (d *Directory) Grant(id string) (storage.Grant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	grant, ok := d.picture.grants.get(id)
	return ownGrant(grant), ok
}

// GrantByName finds a grant inside a tenant, whoever's it is there.
func (d *Directory) GrantByName(tenantID, grant string) (storage.Grant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	found, ok := d.picture.grants.find(name{tenantID, grant})
	return ownGrant(found), ok
}

// GrantsFor lists what a user of a tenant may ask for, sorted by name: the
// tenant's grants and the user's own, disabled ones too. An empty userID lists
// the tenant's alone.
func (d *Directory) GrantsFor(tenantID, userID string) []storage.Grant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var grants []storage.Grant
	for _, grant := range d.picture.grantsOf[tenantID] {
		if grant.UserID == "" || grant.UserID == userID {
			grants = append(grants, ownGrant(*grant))
		}
	}
	return grants
}

// ownGrant parts the grant from the slice that the picture holds.
func ownGrant(g storage.Grant) storage.Grant {
	g.Actions = slices.Clone(g.Actions)
	return g
}

// CertificateRevoked says whether the certificate with this serial number
// (lower-case hexadecimal) was revoked, and why. Certificates long past their
// end are forgotten.
func (d *Directory) CertificateRevoked(serial string) (reason string, revoked bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if certificate := d.picture.serials[serial]; certificate != nil {
		return certificate.RevocationReason, true
	}
	return "", false
}

// RevokedCertificate finds a revoked certificate by its id, as changes of
// storage.KindCertificate name it.
func (d *Directory) RevokedCertificate(id string) (storage.Certificate, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copied(d.picture.certificates[id])
}

// SessionEnded says whether the session was ended before its token expires.
func (d *Directory) SessionEnded(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ended := d.picture.sessions[id]
	return ended
}

// Revocation finds a revocation that has not expired.
func (d *Directory) Revocation(id string) (storage.Revocation, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copied(d.picture.revocations[id])
}

// Revocations lists those that have not expired, oldest first (by id).
func (d *Directory) Revocations() []storage.Revocation {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]storage.Revocation, 0, len(d.picture.revocations))
	for _, r := range d.picture.revocations {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b storage.Revocation) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
