package directory

import (
	"cmp"
	"slices"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// sweepMargin is how long past its end a revoked certificate or an ended
// session is still remembered. It is far over any step of a clock that is set
// wrong and right again, which would otherwise bring the dead back.
const sweepMargin = 48 * time.Hour

// picture is the state at one sequence of the feed. It does no locking.
type picture struct {
	sequence  int64
	tenants   table[storage.Tenant]
	users     table[storage.User]
	agents    table[storage.Agent]
	locations table[storage.Location]
	grants    table[storage.Grant]
	// grantsOf lists each tenant's grants by name.
	grantsOf map[string][]*storage.Grant
	// certificates are the revoked ones, by id; serials finds them by serial.
	certificates map[string]*storage.Certificate
	serials      map[string]*storage.Certificate
	sessions     map[string]*storage.EndedSession
	revocations  map[string]*storage.Revocation
}

func newPicture(s storage.Snapshot) *picture {
	p := &picture{
		sequence: s.Sequence,
		tenants: newTable(len(s.Tenants), func(t *storage.Tenant) string { return t.ID },
			func(t *storage.Tenant) name { return name{"", t.Name} }),
		users: newTable(len(s.Users), func(u *storage.User) string { return u.ID },
			func(u *storage.User) name { return name{u.TenantID, u.Login} }),
		agents: newTable(len(s.Agents), func(a *storage.Agent) string { return a.ID },
			func(a *storage.Agent) name { return name{a.TenantID, a.Name} }),
		locations: newTable(len(s.Locations), func(l *storage.Location) string { return l.ID },
			func(l *storage.Location) name { return name{"", l.Name} }),
		grants: newTable(len(s.Grants), func(g *storage.Grant) string { return g.ID },
			func(g *storage.Grant) name { return name{g.TenantID, g.Name} }),
		grantsOf:     make(map[string][]*storage.Grant),
		certificates: make(map[string]*storage.Certificate, len(s.RevokedCertificates)),
		serials:      make(map[string]*storage.Certificate, len(s.RevokedCertificates)),
		sessions:     make(map[string]*storage.EndedSession, len(s.EndedSessions)),
		revocations:  make(map[string]*storage.Revocation, len(s.Revocations)),
	}
	// Each entity gets memory of its own: a pointer into the snapshot's slice
	// would keep the whole slice for as long as one entity lives.
	putAll(p, storage.KindTenant, s.Tenants, func(t *storage.Tenant) string { return t.ID })
	putAll(p, storage.KindUser, s.Users, func(u *storage.User) string { return u.ID })
	putAll(p, storage.KindAgent, s.Agents, func(a *storage.Agent) string { return a.ID })
	putAll(p, storage.KindLocation, s.Locations, func(l *storage.Location) string { return l.ID })
	putAll(p, storage.KindGrant, s.Grants, func(g *storage.Grant) string { return g.ID })
	putAll(p, storage.KindCertificate, s.RevokedCertificates, func(c *storage.Certificate) string { return c.ID })
	putAll(p, storage.KindSession, s.EndedSessions, func(e *storage.EndedSession) string { return e.ID })
	putAll(p, storage.KindRevocation, s.Revocations, func(r *storage.Revocation) string { return r.ID })
	return p
}

func putAll[T any](p *picture, kind storage.Kind, entities []T, id func(*T) string) {
	for i := range entities {
		entity := entities[i]
		p.apply(update{kind: kind, id: id(&entity), entity: &entity})
	}
}

// update is one entity as storage has it now.
type update struct {
	kind storage.Kind
	id   string
	// entity points to the stored type of the kind; nil: it is gone, or of a
	// kind that the picture does not hold.
	entity any
}

// apply makes the picture agree with an update.
func (p *picture) apply(u update) {
	switch u.kind {
	case storage.KindTenant:
		apply(&p.tenants, u)
	case storage.KindUser:
		if user, ok := u.entity.(*storage.User); ok {
			user.PasswordHash = ""
			user.TenantID = p.shared(user.TenantID)
		}
		apply(&p.users, u)
	case storage.KindAgent:
		if agent, ok := u.entity.(*storage.Agent); ok {
			agent.TenantID = p.shared(agent.TenantID)
		}
		apply(&p.agents, u)
	case storage.KindLocation:
		apply(&p.locations, u)
	case storage.KindGrant:
		p.applyGrant(u)
	case storage.KindCertificate:
		p.applyCertificate(u)
	case storage.KindSession:
		applyTo(p.sessions, u, func(*storage.EndedSession) bool { return true })
	case storage.KindRevocation:
		applyTo(p.revocations, u, unexpired)
	case storage.KindSealedKey:
		// Not held: the observers who use keys read them again.
	}
}

func apply[T any](t *table[T], u update) {
	if entity, ok := u.entity.(*T); ok {
		t.put(entity)
		return
	}
	t.remove(u.id)
}

func applyTo[T any](m map[string]*T, u update, holds func(*T) bool) {
	if entity, ok := u.entity.(*T); ok && holds(entity) {
		m[u.id] = entity
		return
	}
	delete(m, u.id)
}

func unexpired(r *storage.Revocation) bool { return r.State != storage.RevocationExpired }

// shared gives the tenant's own copy of its id, so that its thousands of
// agents do not each hold one.
func (p *picture) shared(tenantID string) string {
	if tenant, ok := p.tenants.byID[tenantID]; ok {
		return tenant.ID
	}
	return tenantID
}

func (p *picture) applyGrant(u update) {
	if old, ok := p.grants.byID[u.id]; ok {
		list := slices.DeleteFunc(p.grantsOf[old.TenantID], func(g *storage.Grant) bool { return g == old })
		p.grantsOf[old.TenantID] = list
		if len(list) == 0 {
			delete(p.grantsOf, old.TenantID)
		}
	}
	if grant, ok := u.entity.(*storage.Grant); ok {
		grant.TenantID = p.shared(grant.TenantID)
		list := p.grantsOf[grant.TenantID]
		at, _ := slices.BinarySearchFunc(list, grant, func(a, b *storage.Grant) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
		})
		p.grantsOf[grant.TenantID] = slices.Insert(list, at, grant)
	}
	apply(&p.grants, u)
}

// applyCertificate keeps the certificate if it is revoked. Most changes of
// certificates are of newly issued ones, which are not held.
func (p *picture) applyCertificate(u update) {
	if old, ok := p.certificates[u.id]; ok && p.serials[old.Serial] == old {
		delete(p.serials, old.Serial)
	}
	applyTo(p.certificates, u, func(c *storage.Certificate) bool { return !c.RevokedAt.IsZero() })
	if now, ok := p.certificates[u.id]; ok {
		p.serials[now.Serial] = now
	}
}

// expired lists what nobody can use any more, whatever the picture holds of
// it.
func (p *picture) expired(now time.Time) []update {
	var gone []update
	for id, c := range p.certificates {
		// Of a foreign certificate the end may be unknown.
		if !c.NotAfter.IsZero() && now.Sub(c.NotAfter) > sweepMargin {
			gone = append(gone, update{kind: storage.KindCertificate, id: id})
		}
	}
	for id, s := range p.sessions {
		if now.Sub(s.Expires) > sweepMargin {
			gone = append(gone, update{kind: storage.KindSession, id: id})
		}
	}
	return gone
}
